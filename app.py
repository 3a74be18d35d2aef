"""`streamlit run app.py` starts the studio in the browser; `studio app` does the same."""

from studio.ui.main import main

main()
