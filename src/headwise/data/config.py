"""Which images are opened, how many, and how they are kept."""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headwise.config import check_fields
from headwise.errors import UserError

Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images are used, how many, and how they are kept."""

    spec: str = "builtin:shapes"
    """The images: builtin:shapes, builtin:digits, torchvision:NAME, or a path. The path can be a
    folder of images, a .zip of such a folder, an .npz file, or parquet with images (a file, a
    folder, or a pattern with *)."""
    limit: int | None = None
    """Largest number of images of each split; the classes take turns. None: all images."""
    test_fraction: float = 0.2
    """Fraction of each class that becomes the test split (about, as each image's name decides), if
    the images have labels and no test split of their own. 0: no test split is made."""
    split_seed: int = 0
    """Seed that chooses the images of that test split, and of the validation split."""
    validation_fraction: float = 0.0
    """Fraction of each class of the training images (about, as each image's name decides) that is
    held out of training, to choose settings on. It needs labels."""
    test_on: Literal["test", "validation"] = "test"
    """The images that are tested on. validation: the held-out training images of
    --data.validation-fraction, so that the test images stay unseen until the settings are chosen.
    """
    image_column: str | None = None
    """The parquet column with the images. None: the only column that can hold images."""
    label_column: str | None = None
    """The parquet column with the labels. None: a column called label or similar, otherwise the
    only column of integers."""
    labels: str | None = None
    """A CSV file with the columns path and label, and maybe split and group, in place of what the
    folders or the table say. An image that it does not name has no label; several labels of an
    image are separated by ;. None: the labels of the folders or the table."""
    group_column: str | None = None
    """The column of --data.labels, or of a parquet table, that says which images belong together,
    such as frames of a video or images of a patient. A group stays in one split. None: the column
    group of --data.labels, if it has one."""
    group_pattern: str | None = None
    """A regular expression. Images for which its first parentheses match the same part of the path
    belong together: (patient\\d+). None: no groups."""
    fit: Fit | None = None
    """How an image becomes a square. crop: its central square; views in pretraining are still cut
    from the whole image; pad: grey bars on its shorter sides; stretch: both sides at one length.
    None: as in pretraining, where it is crop."""
    resize: int | None = None
    """Make every image a square of this many pixels, as --data.fit says. None: as in pretraining,
    where images keep their size."""
    resident_mib: int = 4096
    """Images of one size are decoded once and kept in memory if a split needs at most this many
    MiB; larger splits stay files."""
    max_bad_fraction: float = 0.01
    """Largest fraction of a split that may be unreadable. Unreadable images are skipped; more than
    this is an error."""
    cache: bool = True
    """Keep decoded images on disk for the next command, in $HEADWISE_CACHE,
    $XDG_CACHE_HOME/headwise or ~/.cache/headwise."""

    def like(self, other: "DataConfig") -> "DataConfig":
        """The same, with the other's `fit` and `resize` where this leaves them open."""
        fit, resize = self.fit or other.fit, self.resize or other.resize
        return dataclasses.replace(self, fit=fit, resize=resize)

    def findable(self) -> "DataConfig":
        """The same, with labels that are found from any working directory."""
        return dataclasses.replace(self, labels=self.labels and os.path.abspath(self.labels))

    def __post_init__(self) -> None:
        check_fields(self)
        if self.limit is not None and self.limit < 1:
            raise UserError(f"data.limit must be at least 1, or none; got {self.limit}")
        if self.resize is not None and self.resize < 1:
            raise UserError(f"data.resize must be at least 1 pixel, or none; got {self.resize}")
        if self.resident_mib < 0:
            raise UserError(f"data.resident_mib must not be negative; got {self.resident_mib}")
        if not 0 <= self.test_fraction < 1:
            raise UserError(f"data.test_fraction must be in [0, 1); got {self.test_fraction}")
        if not 0 <= self.validation_fraction < 1:
            raise UserError(
                f"data.validation_fraction must be in [0, 1); got {self.validation_fraction}"
            )
        if self.test_on == "validation" and not self.validation_fraction:
            raise UserError(
                "data.test_on validation needs validation images; got data.validation_fraction 0; "
                "try 0.2"
            )
        if self.group_pattern is not None:
            self._check_pattern(self.group_pattern)
        if not 0 <= self.max_bad_fraction <= 1:
            raise UserError(f"data.max_bad_fraction must be in [0, 1]; got {self.max_bad_fraction}")

    def _check_pattern(self, pattern: str) -> None:
        if self.group_column is not None:
            raise UserError(
                "data.group_column and data.group_pattern cannot both say what belongs together; "
                "leave one out"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"data.group_pattern must be a regular expression; got {pattern!r}: {error}"
            ) from None


def as_config(given: DataConfig | str | Path) -> DataConfig:
    """The settings, or those of a spec alone."""
    if isinstance(given, str | Path):
        return DataConfig(spec=str(given))
    if not isinstance(given, DataConfig):
        raise UserError(f"data must be a DataConfig, or a spec or path alone; got {given!r:.80}")
    return given
