"""Text on pages."""

from typing import Final

_READ_AS_MARKDOWN: Final = frozenset(r"\`*_{}[]()#+-.!|~$<>:")


def plain(text: str) -> str:
    """Text from outside as it is: nothing in it is read as markdown."""
    return "".join(f"\\{letter}" if letter in _READ_AS_MARKDOWN else letter for letter in text)
