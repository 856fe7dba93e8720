"""What both pages share: templates, and how a page and its figures are written."""

import base64
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from headwise.files import write_atomically, write_text
from headwise.report.plots.drawing import Drawing
from headwise.runs.lock import writing

_NO_BREAK = "\u00a0"


def render(template: str, values: Mapping[str, object], *folders: Path) -> str:
    """A page from the template of this name, here or in other folders."""
    templates = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(taps=_taps, inline=_inline, papers=_papers)
    return templates.get_template(template).render(values)


def write_page(out: Path, html: str, drawings: Iterable[Drawing]) -> Path:
    """Write `out/report.html` and, as SVG, PNG and CSV, `out/figures/`; the path of the page."""
    with writing(out):
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


def data_address(path: Path) -> str:
    """The PNG as a `data:` address; empty if there is none."""
    if not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _taps(text: str) -> Markup:
    """Escaped text with the words h and z in italics, and no line broken before % or after ±."""
    whole = text.replace(" %", f"{_NO_BREAK}%").replace("± ", f"±{_NO_BREAK}")
    parts = ("".join(part) for _, part in groupby(whole, key=_in_word))
    return Markup("").join(Markup(f"<i>{p}</i>") if p in ("h", "z") else escape(p) for p in parts)


def _papers(source: str) -> Markup:
    """A source in which every number of an arXiv paper is a link."""
    return Markup(" ").join(map(_paper, source.split()))


def _paper(text: str) -> Markup:
    number = text.rstrip(",;:.)")
    year, _, rest = number.partition(".")
    if not (len(year) == 4 and year.isdecimal() and rest.isdecimal()):
        return escape(text)
    link = Markup('<a href="https://arxiv.org/abs/{0}">{0}</a>').format(number)
    return link + text.removeprefix(number)


def _in_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _inline(drawing: Drawing) -> Markup:
    """Matplotlib has escaped the words of the SVG."""
    return Markup(drawing.inline)


def _write_bytes(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)
