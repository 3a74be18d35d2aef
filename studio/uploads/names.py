"""Names that come from outside: shown without tricks, and never used as they are."""

import unicodedata
from typing import Final

SHOWN: Final = 60
"""Letters of a name that are shown."""
_KEPT_BYTES: Final = 120
"""Of a name in a folder of ours; file systems take 255, and companions add endings."""
_REPLACED: Final = set('<>:"|?*&`$;\\/%{}[]')
_RESERVED: Final = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def shown_name(name: str) -> str:
    """Makes a foreign name fit for a message: its last part, on one line, short.

    Control characters, and those that turn the direction of the text round or are invisible, are left out.
    """
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    clean = " ".join(_printable(last).split())
    if len(clean) > SHOWN:
        clean = f"{clean[: SHOWN - 21]}…{clean[-20:]}"
    return clean or "without a name"


def shown_path(name: str) -> str:
    """The same for a path inside an archive, where the folders help to find the file."""
    clean = " ".join(_printable(name).split())
    return clean if len(clean) <= 2 * SHOWN else f"{clean[:SHOWN]}…{clean[1 - SHOWN :]}"


def safe_part(name: str) -> str:
    """Makes one part of a path safe for every file system, page and shell; the same name always gives the same.

    Letters of all scripts stay. What HTML, Markdown or a shell would read becomes `_`.
    """
    clean = "".join("_" if letter in _REPLACED else letter for letter in _printable(name)).strip(" ")
    clean = clean.rstrip(".") or "_"
    stem, dot, ending = clean.rpartition(".")
    if not dot:
        stem, ending = clean, ""
    if stem.split(".")[0].lower() in _RESERVED or stem.startswith("-"):
        stem = f"_{stem}"
    room = _KEPT_BYTES - len(f"{dot}{ending}".encode())
    if room < 16:  # an ending of a hundred letters is none
        stem, dot, ending, room = f"{stem}{dot}{ending}", "", "", _KEPT_BYTES
    stem = stem.encode()[:room].decode(errors="ignore")
    return f"{stem}{dot}{ending}"


def _printable(text: str) -> str:
    """NFC without control, format (bidi, zero width), surrogate, private, unassigned and line-separator letters."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(c for c in composed if unicodedata.category(c)[0] != "C" and unicodedata.category(c) not in _LINES)


_LINES: Final = {"Zl", "Zp"}
