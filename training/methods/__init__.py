"""Fine-tuning methods: which numbers of a network are trained, and how. One file a method."""

from training.methods import (
    difffit,
    hft,
    id3,
    lt_sft,
    paca,
    partial,
    peft_family,
    peft_methods,
    sara,
    sparse,
    spt,
    svdiff,
)
from training.methods.ages import follow_ages
from training.methods.base import METHODS, MethodConfig, Tuner
from training.methods.optimizer import rebuild
from training.methods.scope import Scope, find_scope

__all__ = [
    "METHODS", "MethodConfig", "Scope", "Tuner", "difffit", "find_scope", "follow_ages", "hft", "id3", "lt_sft", "paca",
    "partial", "peft_family", "peft_methods", "rebuild", "sara", "sparse", "spt", "svdiff",
]  # fmt: skip
