"""Adapters in forms that other programs load, each read back before it is kept."""

from training.exporting.base import Base, Report, open_base
from training.exporting.lora import export_lora
from training.exporting.merged import export_merged

__all__ = ["Base", "Report", "export_lora", "export_merged", "open_base"]
