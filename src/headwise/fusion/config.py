"""The settings of `headwise fusion`."""

from dataclasses import dataclass
from typing import Literal

from headwise.config import check_fields
from headwise.errors import UserError
from headwise.runtime.hardware import Device

Split = Literal["test", "train"]

SMALLEST_BATCH = 4
"""Number of images. Fewer cannot hold two images of each of two classes."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How many images fusion is measured on, and how often."""

    batch_size: int | None = None
    """Images in a batch; each gives two views. None: the batch size of pretraining, but at most
    a sixth of the images."""
    batches: int = 8
    """Number of batches; no image is in two. Intervals are over batches, because attention couples
    the rows of a batch. Fewer than six have no verdict."""
    split: Split = "test"
    """The images to measure on. test: training images if there are no labelled test images."""
    permutations: int = 200
    """Number of random relabellings for each p-value. At least twenty for each block are drawn."""
    over_training: bool = False
    """Also measure attention before training and at every checkpoint that the run kept."""
    seed: int = 0
    """Seed of the choice of images, their views and the relabellings."""
    device: Device = "auto"
    """The device to run on. auto: a GPU if there is one."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.batch_size is not None and self.batch_size < SMALLEST_BATCH:
            raise UserError(
                f"--batch-size must be at least {SMALLEST_BATCH} images; got {self.batch_size}"
            )
        if self.batches < 2:
            raise UserError(f"--batches must be at least 2, for an interval; got {self.batches}")
        if self.permutations < 1:
            raise UserError(f"--permutations must be at least 1; got {self.permutations}")
