"""The studio in the browser: navigation and what all pages share."""

import streamlit as st

from studio.ui.pages import animate, pose


def main() -> None:
    """Draws the page that is chosen."""
    st.set_page_config(page_title="animatex-studio", layout="wide")
    pages = {
        "animate": st.Page(animate.draw, title="Animate", url_path="animate", default=True),
        "pose": st.Page(pose.draw, title="Pose", url_path="pose"),
    }
    st.session_state["pages"] = pages  # so that one page can open another
    st.navigation(list(pages.values())).run()


if __name__ == "__main__":
    main()
