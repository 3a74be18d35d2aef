"""Several adapters of one base made into one."""

from training.merging.join import join, save_merged
from training.merging.rules import RULES, MergeOptions, Rule

__all__ = ["RULES", "MergeOptions", "Rule", "join", "save_merged"]
