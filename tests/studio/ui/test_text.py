"""Foreign text in Markdown."""

import pytest
from markdown_it import MarkdownIt

from studio.ui.text import plain

NASTY = [
    "**bold** _it_ ~~gone~~ `code`",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "&lt;b&gt; &#58; &amp;",
    "$x^2$ $$y$$",
    "# heading",
    "- item",
    "+ item",
    "12. item",
    "3) item",
    "> quote",
    "=== ",
    "| a | b |",
    ":red[text] :blue-background[x] :small[x]",
    ":material/home: :smile: :+1: :streamlit:",
    "a -> b <- c <-> d -- e >= f <= g ~= h",
    "https://evil.example/x?a=1&b=2 www.evil.example me@evil.example",
    "back\\slash \\* \\",
    "[x]: http://evil.example",
    "    indented code",
    "C:\\data\\a_b*c.png",
    "12:30, 50 % of 3.5 (three and a half)",
]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_reads_the_text_itself_and_nothing_else(text):
    (block,) = [token for token in MarkdownIt("gfm-like", {"linkify": False}).parse(plain(text)) if token.children]
    assert {child.type for child in block.children} <= {"text", "text_special"}
    shown = "".join(child.content for child in block.children).replace("\u2060", "")
    assert shown == " ".join(text.split())


@pytest.mark.parametrize("text", [":smile:", ":material/home:", ":streamlit:", "a:b:c", "http://x.y", "https://x"])
def test_no_colon_stands_before_a_letter(text):
    """Emoji, icons and links are replaced in the text that Markdown gives, where escapes are gone."""
    import re

    assert not re.search(r":[^\s\u2060]", plain(text).replace("\\", ""))


@pytest.mark.parametrize("arrow", ["->", "<-", "<->", "--", ">=", "<=", "~="])
def test_arrows_stay_as_typed(arrow):
    assert arrow not in plain(f"a {arrow} b").replace("\\", "")


def test_lines_control_letters_and_turned_writing_are_gone():
    assert plain("a\nb\tc\x1b[0m \u202egnp.exe\u200b\x00") == "a b c\\[0m gnp.exe"


def test_ordinary_names_stay_readable():
    for text in ("walk-2.mp4", "café (1).png", "seed 3, 12 fps", "it's 50 %!", "日本語.png"):
        assert plain(text) == text


def test_anything_can_be_given():
    assert plain(3.5) == "3.5" and plain(None) == "None" and plain("") == ""
