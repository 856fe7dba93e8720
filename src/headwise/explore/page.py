"""The page of a table: a map of its images to look at, select and label."""

import base64
import importlib.util
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex

from headwise.data.images import fingerprint
from headwise.errors import UserError
from headwise.explore.colours import Colouring, colourings
from headwise.explore.map import map_columns
from headwise.explore.neighbours import neighbours
from headwise.explore.rewriting import with_columns
from headwise.explore.table import Table
from headwise.explore.thumbnails import SHEET_SIDE, Thumbnails, largest_side, near_first, sheets
from headwise.files import Json, plain_text, write_atomically, write_text
from headwise.report.pages.rendering import render

MOST_ROWS = 200_000
_HERE = Path(__file__).parent
_SCALE = [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 1, 16))]


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """What the page shows."""

    thumbnails: int = 96
    """Largest side of a thumbnail in pixels. Smaller images keep their size."""
    neighbors: int = 10
    """The nearest neighbours that are shown for an image. The outlier score is the distance to the
    last of them."""
    clusters: int | None = None
    """Clusters of k-means to colour by. None: as many as there are classes, or else 10."""
    packed_mib: int = 32
    """Thumbnails of at most this many MiB are packed into the page. Larger ones go into a folder
    beside it, OUT-stem.thumbnails, which must stay beside it."""
    seed: int = 0
    """Seed of the map and of the clusters."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--thumbnails", self.thumbnails, 8),
            ("--neighbors", self.neighbors, 1),
            ("--clusters", self.clusters, 1),
            ("--packed-mib", self.packed_mib, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} must be at least {least}; got {value}")


def check_extra() -> None:
    """Raise `UserError` if plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise UserError(
            "headwise explore needs plotly, which is not installed; "
            "install it with: pip install 'headwise[explore]'"
        )


def check_rows(table: Table) -> None:
    """Raise `UserError` for a table that is too large for a page."""
    if len(table) > MOST_ROWS:
        raise UserError(
            f"headwise explore shows at most {MOST_ROWS:,} images; {table.path} has "
            f"{len(table):,} rows; embed fewer with --data.limit"
        )


def mapped(table: Table, seed: int) -> tuple[Float[np.ndarray, "n 2"], str]:
    """The map of the table, and how it was made: its own columns `x` and `y`; if it has none, they
    are made and written into it."""
    own = [table.columns[name] for name in ("x", "y") if name in table.columns]
    if len(own) == 2 and all(one.dtype.kind in "fi" and np.isfinite(one).all() for one in own):
        return np.stack(own, 1), table.about.get("map", "the columns x and y of the table")
    columns, how = map_columns(table, seed)
    with_columns(table.path, columns, {"map": how})
    return np.stack([*columns.values()], 1), how


def write_page(table: Table, found: Thumbnails, out: Path, config: ExploreConfig) -> str:
    """Write the page, and perhaps the folder of its thumbnails; say what was written."""
    points, how = mapped(table, config.seed)
    k = min(config.neighbors, len(table) - 1)
    if k:
        rows, similar = (found.numpy() for found in neighbours(table.h, table.h, k, other=True))
    else:
        rows, similar = np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)
    side = largest_side(found, config.thumbnails)
    order = near_first(points)
    pages = list(sheets(found, order.tolist(), side))
    folder = out.with_name(f"{out.stem}.thumbnails")
    packed = sum(map(len, pages)) <= config.packed_mib << 20
    data: Json = {
        "x": _packed(points[:, 0], np.float32),
        "y": _packed(points[:, 1], np.float32),
        "paths": [plain_text(str(name)) for name in table.names],
        "split": _text(table.split) if any(table.split) else None,
        "k": k,
        "neighbours": _packed(rows, np.uint32),
        "similarities": _packed(similar, np.float32),
        "slots": _packed(_slots(order, found), np.int32),
        "px": side,
        "perSheet": SHEET_SIDE,
        "sheets": [_base64(page) for page in pages]
        if packed
        else [f"{folder.name}/{i:05d}.jpg" for i in range(len(pages))],
        "packed": packed,
        "colours": [
            _colour(one)
            for one in colourings(table, similar, clusters=config.clusters, seed=config.seed)
        ],
        "scale": _SCALE,
        "key": fingerprint("\0".join(map(str, table.names)).encode(errors="replace"))[:16],
    }
    _write_folder(folder, () if packed else pages)
    write_text(out, _html(table, how, data))
    return f"{out}: {len(table):,} images" + ("" if packed else f"; thumbnails: {folder}")


def _html(table: Table, how: str, data: Json) -> str:
    from plotly.offline import get_plotlyjs

    # A path may contain "</script>".
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    about = table.about
    values = {
        "title": table.path.stem,
        "facts": [
            f"{len(table):,} images",
            *([f"{len(table.classes)} classes"] if table.classes else []),
            *([f"h of {about['run']}"] if about.get("run") else []),
        ],
        "how": how,
        "data": Markup(text),
        "script": Markup((_HERE / "page.js").read_text()),
        "plotly": Markup(get_plotlyjs()),
    }
    return render("explore.html", values, _HERE)


def _colour(one: Colouring) -> Json:
    if one.names is None:
        return {
            "name": one.name,
            "low": one.low,
            "high": one.high,
            "values": _packed(one.values, np.float32),
        }
    return {"name": one.name, "names": [*one.names], "codes": _packed(one.values, np.int32)}


def _text(values: Iterable[object]) -> Json:
    """Text of few kinds: the kinds, and which of them each row has."""
    names, codes = np.unique(np.array([*map(str, values)], object).astype(str), return_inverse=True)
    return {"names": names.tolist(), "codes": _packed(codes, np.int32)}


def _slots(order: np.ndarray, found: Thumbnails) -> np.ndarray:
    """The place of each row's thumbnail on the sheets, counted over all; −1 where it has none."""
    slots = np.empty(len(order), np.int32)
    slots[order] = np.arange(len(order))
    slots[[one is None for one in found]] = -1
    return slots


def _packed(values: np.ndarray, kind: type) -> str:
    return _base64(np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _write_folder(folder: Path, pages: Iterable[bytes]) -> None:
    """Replace the folder of an earlier page; without pages it is gone."""
    if folder.is_dir():
        shutil.rmtree(folder)

    def write(temporary: Path) -> None:
        temporary.mkdir()
        for i, page in enumerate(pages):
            (temporary / f"{i:05d}.jpg").write_bytes(page)

    if pages:
        write_atomically(folder, write)
