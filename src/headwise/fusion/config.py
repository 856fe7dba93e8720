"""What the lab measures, and on how much: the settings of `headwise fusion`."""

from dataclasses import dataclass

from headwise.errors import UserError
from headwise.runtime.hardware import Device

SMALLEST_BATCH = 4
"""Images: fewer cannot hold two of one class beside two of another."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """On how many images fusion is measured, and how often."""

    batch_size: int | None = None
    """Images a batch; each gives two views. None: that of pretraining, but at most half the
    images."""
    batches: int = 8
    """Batches of distinct images. Attention couples the rows of a batch, so intervals are over
    batches."""
    permutations: int = 200
    """Random relabellings behind each p-value; at least twenty a block are drawn."""
    over_training: bool = False
    """Also measure attention at every checkpoint that the run kept, and before training."""
    seed: int = 0
    """Of the images in the batches, their views and the relabellings."""
    device: Device = "auto"
    """auto: a GPU where there is one."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < SMALLEST_BATCH:
            raise UserError(
                f"--batch-size must be at least {SMALLEST_BATCH} images; got {self.batch_size}"
            )
        if self.batches < 2:
            raise UserError(f"--batches must be at least 2, for an interval; got {self.batches}")
        if self.permutations < 1:
            raise UserError(f"--permutations must be at least 1; got {self.permutations}")
