"""The bundled characters: names that stand for a picture wherever one is asked for."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

CHARACTERS: Final[Mapping[str, str]] = {
    "cat": "a purple figure with pointed cat ears",
    "imp": "a red stubby figure with pointed cat ears",
    "juice-box": "a striped green juice box",
    "lanky-bear": "a green and orange dotted tall thin person with round bear ears",
    "monster": "a checked orange round monster",
    "rabbit": "a green and white checked blob with long rabbit ears",
}
"""Name -> what it looks like, in the words that the mini model knows. `scripts/make_characters.py` draws them."""


def character_file(name: str) -> Path:
    """The picture of a bundled character."""
    return Path(str(resources.files("studio"))) / "assets" / "characters" / f"{name}.png"


def picture_file(picture: Path) -> Path:
    """The file behind a picture: a bundled character where there is no such file but such a name."""
    if str(picture) in CHARACTERS and not picture.exists():
        return character_file(str(picture))
    return picture
