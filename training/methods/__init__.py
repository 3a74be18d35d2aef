"""Fine-tuning methods: which numbers of a network are trained, and how. One file a method."""

from training.methods import paca, sara
from training.methods.base import METHODS, MethodConfig, Tuner
from training.methods.scope import Scope, find_scope

__all__ = ["METHODS", "MethodConfig", "Scope", "Tuner", "find_scope", "paca", "sara"]
