"""What both reports share: templates, words, and how a page and its figures are written."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from headwise.files import write_atomically, write_text
from headwise.report.plots.drawing import Drawing
from headwise.runs.results import Result

OF_ALL = {
    "value",
    "seeds",
    "std",
    "standard_error",
    "interval",
    "chance",
    "protocol",
    "version",
    "data",
    "fingerprint",
}
"""What every result may have: the rest are the settings of its probe."""


def render(template: str, values: dict[str, Any]) -> str:
    """A page from the template of this name."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(taps=_taps, inline=_inline)
    return templates.get_template(template).render(values)


def write_page(out: Path, html: str, drawings: Iterable[Drawing]) -> Path:
    """Write `out/report.html` and, as SVG, PNG and CSV, `out/figures/`; the path of the page."""
    write_drawings(out / "figures", drawings)
    write_text(out / "report.html", html)
    return out / "report.html"


def write_drawings(folder: Path, drawings: Iterable[Drawing]) -> None:
    """Each as SVG and PNG, and what is drawn as CSV."""
    for drawing in drawings:
        write_text(folder / f"{drawing.name}.svg", drawing.svg)
        _write_bytes(folder / f"{drawing.name}.png", drawing.png)
        if drawing.table:
            write_text(folder / f"{drawing.name}.csv", drawing.table)


def settings(results: dict[str, Result]) -> dict[str, str]:
    """What each result says of its probe, in words, beside what every result says."""
    return {
        name: ", ".join(
            f"{key} = {word(item)}" for key, item in result.items() if key not in OF_ALL
        )
        for name, result in results.items()
    }


def word(value: Any) -> str:
    """A setting as text."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{key} {word(item)}" for key, item in value.items())
        case list():
            return ", ".join(map(word, value))
        case None:
            return "unknown"
        case _:
            return str(value)


def _taps(text: str) -> Markup:
    """Escaped text with h and z in italics, and no line broken before % or after ±."""
    whole = text.replace(" %", "\u00a0%").replace("± ", "±\u00a0")
    return Markup(re.sub(r"\b([hz])\b", r"<i>\1</i>", str(escape(whole))))


def _inline(drawing: Drawing) -> Markup:
    """Matplotlib has escaped the words of the SVG."""
    return Markup(drawing.inline)


def _write_bytes(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)
