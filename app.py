"""`streamlit run app.py` starts the studio in the browser; `studio app` does the same."""

import streamlit as st

from studio.ui.main import main
from studio.ui.serve import PAGES, door_of_streamlit_run

if __name__ == "__main__":
    main()
else:  # Streamlit imports this file to serve what is called `app`, behind the door
    app = st.App(PAGES, **door_of_streamlit_run())
