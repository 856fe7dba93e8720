"""Losses: pure functions of the projections of a whole batch, in float32 whatever the autocast."""

from headwise.losses.affinity import affinity, affinity_loss, js_divergence, target_affinity
from headwise.losses.anchors import anchor_regression, orthonormal_anchors
from headwise.losses.dense import contrastive_accuracy, contrastive_logits
from headwise.losses.ntxent import Method, NtXent, chosen_method, nt_xent, nt_xent_and_accuracy

__all__ = [
    "Method",
    "NtXent",
    "affinity",
    "affinity_loss",
    "anchor_regression",
    "chosen_method",
    "contrastive_accuracy",
    "contrastive_logits",
    "js_divergence",
    "nt_xent",
    "nt_xent_and_accuracy",
    "orthonormal_anchors",
    "target_affinity",
]
