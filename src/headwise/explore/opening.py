"""The images of a table, opened to be shown."""

import dataclasses

from headwise.data import DataConfig, open_images
from headwise.errors import UserError
from headwise.explore.table import Table
from headwise.explore.thumbnails import Thumbnails, from_column, from_images
from headwise.runtime.hardware import usable_cores


def thumbnails_of(
    table: Table, data: DataConfig | None, px: int, *, workers: int | None, quiet: bool
) -> Thumbnails:
    """Those of the images that `data` opens; without it, those in the table. Raises `UserError`
    where there are none."""
    if data is None:
        if (own := from_column(table)) is not None:
            return own
        raise UserError(
            f"{table.path} has no thumbnails; name its images as the second word, or make it with "
            "headwise embed --thumbnails 96"
        )
    every = dataclasses.replace(data, test_on="test", validation_fraction=0.0, resident_mib=0)
    splits = [images for images in open_images(every) if images is not None]
    workers = usable_cores() if workers is None else workers
    return from_images(table, splits, px, workers=workers, quiet=quiet)
