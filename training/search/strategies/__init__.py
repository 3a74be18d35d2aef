"""Strategies of the search, one file each."""

from training.search.strategies import memcontrol, optuna_samplers, random
from training.search.strategy import STRATEGIES, SearchStrategy

__all__ = ["STRATEGIES", "SearchStrategy", "memcontrol", "optuna_samplers", "random"]
