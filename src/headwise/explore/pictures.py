"""The images of a table, to be shown."""

import logging
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from headwise.data import DataConfig, Images, open_images
from headwise.data.decode import decode
from headwise.errors import UserError
from headwise.explore.table import Table
from headwise.features.near_copies import picture
from headwise.files import plain_text

log = logging.getLogger("headwise")

Pictures = Callable[[str], Image.Image | None]
"""The image with this path, upright and RGB; None where it cannot be read."""


def open_pictures(table: Table, spec: str | None) -> Pictures | None:
    """Return the images of a table: those of `spec`; by default those of which `embed` says that
    the table was made, or the files that its paths lead to from here or from the table. None, and a
    line that says so, where there are none."""
    if spec is None and table.named:
        for folder in (Path(), table.path.parent):
            if (folder / table.names[0]).is_file():
                return lambda name: _file(folder / name)
    spec = spec or table.about.get("data")
    try:
        if spec is None:
            raise UserError("its paths do not lead to files from here")
        images = every_image(spec)
    except UserError as error:
        log.warning("%s: no images to show: %s; name them with --images", table.path, error)
        return None
    places = {plain_text(id): (part, i) for part in images for i, id in enumerate(part.ids)}
    return lambda name: picture(*places[name]) if name in places else None


def every_image(spec: str) -> list[Images]:
    """Return the images of a spec, those of each split of its own; none is decoded before it is
    read, except those that are in memory anyway."""
    found = open_images(DataConfig(spec=spec, test_fraction=0.0, resident_mib=0))
    return [part for part in found if part is not None]


def _file(path: Path) -> Image.Image | None:
    try:
        with path.open("rb") as file:
            return decode(file)
    except OSError:
        return None
