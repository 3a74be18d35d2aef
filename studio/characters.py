"""The bundled characters: names that stand for a picture wherever one is asked for."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

CHARACTERS: Final[Mapping[str, str]] = {
    "bean": "a yellow and white striped walking bean",
    "bear": "an orange doll with a big head and round bear ears",
    "cat": "a striped red doll with a big head and pointed cat ears",
    "juice-box": "a white and teal striped juice box",
    "monster": "a pink and red checked round monster",
    "rabbit": "an orange and grey striped stocky figure with long rabbit ears",
}
"""Name -> what it looks like; `scripts/make_characters.py` draws them."""


def character_file(name: str) -> Path:
    """The picture of a bundled character."""
    return Path(str(resources.files("studio"))) / "assets" / "characters" / f"{name}.png"


def picture_file(picture: Path) -> Path:
    """The file behind a picture: a bundled character where there is no such file but such a name."""
    if str(picture) in CHARACTERS and not picture.exists():
        return character_file(str(picture))
    return picture
