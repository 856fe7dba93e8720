"""Losses: pure functions of the projections of a whole batch, in float32 whatever the autocast."""

from headwise.losses.dense import contrastive_accuracy, contrastive_logits
from headwise.losses.ntxent import Method, NtXent, chosen_method, nt_xent, nt_xent_and_accuracy

__all__ = [
    "Method",
    "NtXent",
    "chosen_method",
    "contrastive_accuracy",
    "contrastive_logits",
    "nt_xent",
    "nt_xent_and_accuracy",
]
