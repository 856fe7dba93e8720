"""Images from any source: uint8 in memory, or files that workers decode."""

from headwise.data.config import DataConfig, as_config
from headwise.data.given import Given, given_splits
from headwise.data.images import (
    ImageFiles,
    Images,
    ResidentImages,
    Splits,
    write_skipped,
)
from headwise.data.opening import open_images

__all__ = [
    "DataConfig",
    "Given",
    "ImageFiles",
    "Images",
    "ResidentImages",
    "Splits",
    "as_config",
    "given_splits",
    "open_images",
    "write_skipped",
]
