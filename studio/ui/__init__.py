"""The Streamlit pages. They only draw: decisions sit in functions without `st`."""
