"""Foreign text for Streamlit's Markdown: shown as it was typed, and never read as anything else."""

import re
import unicodedata
from typing import Final

_JOINER: Final = "\u2060"
"""Word joiner: invisible, breaks no line. It parts what Streamlit replaces after Markdown's escapes are gone: emoji
shortcodes, arrows, and addresses that become links."""
_MARKUP: Final = re.compile(r"[\\`*_\[\]<>$~&|]")
_LINE_START: Final = re.compile(r"^(?:(?P<mark>[-+#=])|(?P<number>\d{1,9})(?P<dot>[.)])(?=\s|$))")
_COLON: Final = re.compile(r":(?=\S)")
_ARROWS: Final = re.compile(r"(?<!\S)(<->|->|<-|--|>=|<=|~=)(?!\S)")
_UNSEEN: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_WWW: Final = re.compile(r"(?i)\bwww(?=\.)")


def plain(text: object) -> str:
    """Escapes a text for `st.markdown`, `st.caption`, `st.error`, labels and the like: it is shown as it is.

    Covers emphasis, links, images, code, HTML, LaTeX, tables, lists, quotes, headings, colours and badges (`:red[x]`),
    icons and emoji (`:material/home:`, `:smile:`), typographic arrows and bare addresses. Control characters and those
    that turn the writing direction are left out, and lines become one. For names to copy, take `st.code`.
    """
    words = " ".join(_visible(str(text)).split())
    words = _ARROWS.sub(lambda found: found[1][0] + _JOINER + found[1][1:], words)
    words = _WWW.sub(lambda found: found[0] + _JOINER, words).replace("@", "@" + _JOINER)
    words = _MARKUP.sub(lambda found: "\\" + found[0], words)
    words = _COLON.sub("\\:" + _JOINER, words)
    return _LINE_START.sub(_escape_start, words)


def _visible(text: str) -> str:
    return "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in _UNSEEN)


def _escape_start(found: re.Match[str]) -> str:
    return f"\\{found['mark']}" if found["mark"] else f"{found['number']}\\{found['dot']}"
