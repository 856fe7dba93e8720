"""`claims.html` and `claims.md`: every claim of the papers, with what studies here say of it."""

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.files import write_text
from headwise.report.pages.rendering import render
from headwise.report.reading.study import LedgerRow
from headwise.report.words import counted

NOT_ASKED = "not asked yet"

_OPENING = (
    "Claims that the literature makes of projection heads and of SimCLR, with who makes them, and "
    "what studies with Headwise say of each. An answer holds at the scale that stands beside it: "
    "another data set, encoder or number of epochs may answer otherwise."
)
_ANSWERS = (
    "Supported: every contrast of the claim is shown to be as it says. Contradicted: one is shown "
    "to be the other way. Equivalent: a difference is claimed, and there is none larger than the "
    "margin. Cannot tell: none of these is shown, or there are fewer than "
    f"{FEWEST_SEEDS} seeds."
)


def write_claims(rows: Sequence[LedgerRow], out: Path) -> tuple[Path, Path]:
    """Write `claims.html` and `claims.md` into `out`; their paths."""
    page, markdown = out / "claims.html", out / "claims.md"
    write_text(page, render("claims.html", _values(rows)))
    write_text(markdown, claims_markdown(rows))
    return page, markdown


def claims_markdown(rows: Sequence[LedgerRow]) -> str:
    """The page as Markdown."""
    parts = ["# Claims of the papers", _OPENING, _summary(rows), _ANSWERS]
    parts.append("`headwise study claims DIR DIR … --out DIR` makes this page from studies.")
    for study, claims in _by_study(rows):
        first = claims[0][0]
        asks = [f"To ask: `{first.command}`."] if first.command else []
        asks += [f"It takes {first.takes}."] if first.takes else []
        table = ["| claim | who says it, and their numbers | here |", "|---|---|---|"]
        for lines in claims:
            row = lines[0]
            source = _linked(f"{row.source}: {row.paper}" if row.paper else row.source)
            here = "<br>".join(map(_line, lines))
            table.append(f"| {_cell(row.says)} | {_cell(source)} | {_cell(here)} |")
        parts += [f"## {study}", " ".join(asks), "\n".join(table)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _values(rows: Sequence[LedgerRow]) -> dict[str, object]:
    """What the template asks for."""
    return {
        "opening": _OPENING,
        "summary": _summary(rows),
        "answers": _ANSWERS,
        "studies": _by_study(rows),
        "not_asked": NOT_ASKED,
        "about": about,
    }


def _by_study(rows: Sequence[LedgerRow]) -> list[tuple[str, list[list[LedgerRow]]]]:
    """By study, the lines of each claim."""
    return [
        (study, [list(lines) for _, lines in groupby(some, key=lambda row: row.claim)])
        for study, some in groupby(rows, key=lambda row: row.study)
    ]


def about(row: LedgerRow) -> str:
    """What stands behind an answer: seeds, scale, directory, and what would decide it."""
    facts = [counted(row.seeds, "seed"), row.scale, row.folder]
    facts += [f"to decide it: {row.decides}"] if row.decides else []
    return "; ".join(filter(None, facts))


def _summary(rows: Sequence[LedgerRow]) -> str:
    """How many claims there are, and how many answers of each kind."""
    claims = {(row.study, row.claim) for row in rows}
    elsewhere = "asked by another command"
    answers = [row.answer or (elsewhere if row.ours else NOT_ASKED) for row in rows]
    kinds = ("supported", "contradicted", "equivalent", "cannot tell", NOT_ASKED, elsewhere)
    counts = [f"{answers.count(kind)} {kind}" for kind in kinds if kind in answers]
    return f"{counted(len(claims), 'claim')}: {', '.join(counts)}."


def _line(row: LedgerRow) -> str:
    if row.answer is None:
        return row.ours or f"**{NOT_ASKED}**"
    return f"**{row.answer}**: {row.ours} ({about(row)})"


def _linked(source: str) -> str:
    return re.sub(r"\b(\d{4}\.\d{5})\b", r"[\1](https://arxiv.org/abs/\1)", source)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
