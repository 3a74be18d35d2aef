"""What a fine-tuned model has memorized: samples, figures with their backgrounds, and the pictures behind them."""

from training.finetune.audit.audit import AuditOptions, audit_run
from training.finetune.audit.figure import Figure
from training.finetune.audit.report import Audit
from training.finetune.data.leakage import LeakageError

__all__ = ["Audit", "AuditOptions", "Figure", "LeakageError", "audit_run"]
