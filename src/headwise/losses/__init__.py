"""Losses: pure functions of the projections of a whole batch. Autocast does not affect them."""

from headwise.losses.affinity import affinity, affinity_loss, js_divergence, target_affinity
from headwise.losses.class_directions import direction_regression, orthonormal_directions
from headwise.losses.dcl import dcl
from headwise.losses.dense import contrastive_accuracy, contrastive_entropy, contrastive_logits
from headwise.losses.labelled import class_cross_entropy, supcon
from headwise.losses.ntxent import Method, NtXent, chosen_method, nt_xent, nt_xent_and_accuracy
from headwise.losses.triplets import Negatives, margin_triplet, nt_logistic

__all__ = [
    "Method",
    "Negatives",
    "NtXent",
    "affinity",
    "affinity_loss",
    "chosen_method",
    "class_cross_entropy",
    "contrastive_accuracy",
    "contrastive_entropy",
    "contrastive_logits",
    "dcl",
    "direction_regression",
    "js_divergence",
    "margin_triplet",
    "nt_logistic",
    "nt_xent",
    "nt_xent_and_accuracy",
    "orthonormal_directions",
    "supcon",
    "target_affinity",
]
