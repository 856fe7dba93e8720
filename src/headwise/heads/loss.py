"""What a head asks of its loss, and whether it can cheat it."""

from headwise.heads.config import HeadConfig


def leaks(config: HeadConfig) -> bool:
    """Return whether the context reveals the twin of a sample, so that the loss can be solved
    without looking at the images. A mask that hides exactly the twin shows which row it is."""
    return config.context == "twin-masked"


def loss_groups(config: HeadConfig) -> int:
    """Return the number of parts of the batch that have separate losses: the candidates of a row
    are the rows of its part. In context halves, the hidden rows reveal which half holds the twin;
    this does not help if all candidates are in that half."""
    return 2 if config.context == "halves" else 1


def loss_forms(config: HeadConfig) -> int:
    """Return how many forms of a row `z` holds side by side in training, `[m forms·d]`. Each has a
    loss of its own."""
    return 2 if config.name == "batchformer" else 1
