"""Contact sheets: many pictures with a caption each, as one PNG."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from headwise.data.decode import square
from headwise.files import write_atomically

_TILE_PX, _GAP_PX, _LINE_PX, _FONT_PX = 128, 8, 15, 12


class Tile(NamedTuple):
    """A picture on a sheet."""

    image: Image.Image | None
    """None: an empty frame."""
    caption: Sequence[str] = ()
    """Lines below it. Of a line that is too long, the last one loses its beginning, and others
    their end."""
    marked: bool = False
    """Whether a frame marks it."""


def write_contact_sheet(rows: Iterable[Sequence[Tile]], path: Path) -> None:
    """Write rows of pictures, each as its central square, as a PNG. Small pictures are enlarged
    without smoothing."""
    rows = list(rows)
    lines = max((len(tile.caption) for row in rows for tile in row), default=0)
    step = _TILE_PX + _GAP_PX, _TILE_PX + _LINE_PX * lines + _GAP_PX
    width = max(map(len, rows), default=1) * step[0] + _GAP_PX
    sheet = Image.new("RGB", (width, len(rows) * step[1] + _GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            x, y = _GAP_PX + across * step[0], _GAP_PX + down * step[1]
            box = (x, y, x + _TILE_PX - 1, y + _TILE_PX - 1)
            if tile.image is None:
                draw.rectangle(box, outline="#888888")
            else:
                sheet.paste(_square(tile.image), (x, y))
            if tile.marked:
                draw.rectangle((x - 3, y - 3, box[2] + 3, box[3] + 3), outline="#c02020", width=3)
            for i, line in enumerate(tile.caption):
                text = _fitting(line, font, end=i == len(tile.caption) - 1)
                draw.text((x, y + _TILE_PX + 2 + i * _LINE_PX), text, "black", font)
    write_atomically(path, lambda temporary: sheet.save(temporary, "PNG"))


def in_rows(tiles: Sequence[Tile], columns: int = 8) -> list[Sequence[Tile]]:
    """Return tiles in rows of so many."""
    return [tiles[i : i + columns] for i in range(0, len(tiles), columns)]


def _square(image: Image.Image) -> Image.Image:
    if min(image.size) >= _TILE_PX:
        return square(image, _TILE_PX)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    whole = image.crop((left, top, left + side, top + side))
    return whole.resize((_TILE_PX, _TILE_PX), Image.Resampling.NEAREST)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, *, end: bool) -> str:
    """As much of a text as is as wide as a picture."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    if font.getlength(text) <= _TILE_PX:
        return text
    while font.getlength(f"..{text}") > _TILE_PX:
        text = text[1:] if end else text[:-1]
    return f"..{text}" if end else f"{text}.."
