"""Judging a representation: probes on frozen features."""

from headwise.evaluation.evaluate import evaluate, probe_baselines
from headwise.evaluation.factors import factor_scores
from headwise.evaluation.probes import PROTOCOLS, Result, check_labels, check_protocols, probe

__all__ = [
    "PROTOCOLS",
    "Result",
    "check_labels",
    "check_protocols",
    "evaluate",
    "factor_scores",
    "probe",
    "probe_baselines",
]
