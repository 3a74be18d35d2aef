"""The few pages of the door itself: they load nothing, run no script, and look like the app in light and dark."""

from html import escape
from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 "Source Sans", "Source Sans Pro", system-ui, sans-serif }
body { margin: 0; min-height: 100vh; display: grid; place-items: center }
main { width: min(24rem, calc(100vw - 3rem)) }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .75rem }
p { margin: 0 0 1rem }
label { display: block; font-size: .875rem; margin-bottom: .25rem }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem .75rem; border-radius: .5rem;
  border: 1px solid light-dark(#c8ccd4, #555a66); background: light-dark(#f0f2f6, #262730) }
button { margin-top: .75rem; border: 0; background: #d32f2f; color: #fff; font-weight: 600; cursor: pointer }
button:hover, button:focus-visible { background: #b71c1c }
.wrong { color: light-dark(#b3261e, #ff8a80) }
.hint { opacity: .75; font-size: .875rem; margin-top: 1rem }
"""


def sign_in_page(wrong: str = "") -> str:
    """Asks for the token; `wrong` says why the last one did not help."""
    told = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
    return _page(
        "Sign in",
        f"""<p>This studio asks for its token.</p>{told}
<form method="post" action="">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open the studio</button>
</form>
<p class="hint">It is in the address that <code>studio app</code> printed when it started, in its token file, or in
<code>STUDIO_TOKEN</code>.</p>""",
    )


def refresh_page(url: str) -> str:
    """Goes on to `url`. A redirect would not do: after a click in a mail or chat, a browser does not send a strict
    cookie along with it, but it does for a page that goes on by itself."""
    safe = escape(url, quote=True)
    refresh = f'<meta http-equiv="refresh" content="0;url={safe}">'
    return _page("Signed in", f'<p><a href="{safe}">Go on to the studio</a></p>', refresh)


def message_page(text: str) -> str:
    """Says one thing."""
    return _page("Not here", f"<p>{escape(text)}</p>")


def _page(title: str, content: str, head: str = "") -> str:
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
            f"<title>{title} · animatex-studio</title><style>{_STYLE}</style></head>"
            f"<body><main><h1>{title}</h1>{content}</main></body></html>")  # fmt: skip
