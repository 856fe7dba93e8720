"""The papers' ablations, ready to run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwise.study.design import Study
    from headwise.study.presets.budgets import Budget

PRESETS = {
    "heads": "Which projection head makes the best representation, and is h better than z?",
    "augmentations": "Which augmentations, alone and in pairs, make the best representation?",
    "pixel-histograms": "Can crops of one image be matched by their histograms of pixel values?",
    "strength": "Does stronger colour distortion help contrastive learning, and supervised "
    "learning?",
    "batch-size": "Do larger batches help, for how long, and contrastive learning alone?",
    "temperature": "Which temperature is best, and does it help to normalise z?",
    "losses": "Is NT-Xent the best of the contrastive losses?",
    "deep-fusion": "Is the Transformer head better than FFN heads, and do its blocks fuse classes?",
    "weight-decay": "Which weight decay is best for the Transformer head?",
    "projection-size": "Which output size is best for the Transformer head?",
    "transformer-depth": "Which depth is best for the Transformer head?",
    "transformer-heads": "Which attention heads is best for the Transformer head?",
    "transformer-batch-size": "Which batch size is best for the Transformer head?",
    "transformer-temperature": "Which temperature is best for the Transformer head?",
    "semi-supervised": "Does pretraining help when few labels are known?",
    "fine-tune": "With all labels, is a pretrained network a better start, and what does it "
    "forget?",
    "fine-tune-from-tap": "Is it better to discard the head before fine-tuning, or to keep a part "
    "of it?",
    "transfer": "Does the representation serve other images than those of pretraining?",
    "transformations": "What does h keep that z loses, and what does h keep without a head?",
    "collapse": "How many dimensions do h and z use, and what in a head keeps those of h?",
}
"""What each asks, by name, in the order of the pages: read without importing torch."""
UNTRAINED = "pixel-histograms"
"""It trains nothing: `histograms.run_histograms` answers it."""


def preset(name: str, budget: "Budget", data: Sequence[str] = ()) -> "Study":
    """The study of this name. `data`: the images, as for --data; by default those of the budget.

    Raises `UserError` for an unknown name, and for images that are not the right number of sets.
    """
    from headwise.study.presets.choice import study_of

    return study_of(name, budget, data)
