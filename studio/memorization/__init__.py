"""The report of an audit: JSON for programs, a page for people, a line for the model card."""

from studio.memorization.card import write_card_line
from studio.memorization.page import write_page
from studio.memorization.values import report_values, write_pairs

__all__ = ["report_values", "write_card_line", "write_page", "write_pairs"]
