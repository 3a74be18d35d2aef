"""What Streamlit runs to draw any page. It stands here since a folder `pages` beside it would be taken for pages."""

from studio.ui.main import main

main()
