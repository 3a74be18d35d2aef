"""Fine-tuning methods: which numbers of a network are trained, and how. One file a method."""

from training.methods import difffit, paca, partial, peft_methods, sara, sparse, svdiff
from training.methods.base import METHODS, MethodConfig, Tuner
from training.methods.scope import Scope, find_scope

__all__ = [
    "METHODS", "MethodConfig", "Scope", "Tuner", "difffit", "find_scope", "paca", "partial", "peft_methods", "sara",
    "sparse", "svdiff",
]  # fmt: skip
