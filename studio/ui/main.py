"""The studio in the browser: navigation and what all pages share."""

import streamlit as st

from studio.ui.pages import animate
from studio.ui.serve import why_exposed


def main() -> None:
    """Draws the page that is chosen."""
    st.set_page_config(page_title="animatex-studio", layout="wide")
    if why := why_exposed():
        st.error(why)
        st.stop()
    page = st.navigation([st.Page(animate.draw, title="Animate", url_path="animate", default=True)])
    page.run()


if __name__ == "__main__":
    main()
