"""Losses: pure functions of the projections of a whole batch. Autocast does not affect them."""

from headwise.losses.affinity import affinity, affinity_loss, js_divergence, target_affinity
from headwise.losses.class_directions import direction_regression, orthonormal_directions
from headwise.losses.dense import contrastive_accuracy, contrastive_logits
from headwise.losses.ntxent import Method, NtXent, chosen_method, nt_xent, nt_xent_and_accuracy

__all__ = [
    "Method",
    "NtXent",
    "affinity",
    "affinity_loss",
    "chosen_method",
    "contrastive_accuracy",
    "contrastive_logits",
    "direction_regression",
    "js_divergence",
    "nt_xent",
    "nt_xent_and_accuracy",
    "orthonormal_directions",
    "target_affinity",
]
