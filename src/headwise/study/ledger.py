"""Every claim of the papers, with the answers of the studies that have asked it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.report.pages.claims import write_claims
from headwise.report.reading.study import ClaimFound, LedgerRow, StudyFindings, read_findings
from headwise.study.presets import PRESETS, preset

_OTHER_COMMANDS = (
    LedgerRow(
        study="theory",
        claim="theory-rates",
        says="Attention over a batch makes images of one class similar, block by block, at a rate "
        "that a theory of two cosines predicts.",
        source="Deep Fusion (arXiv 2403.18681), its theory",
        paper="its formulas were not at hand",
        command="headwise theory --out runs/theory",
        takes="",
        ours="docs/theory.md derives the rates and compares them with random batches and with "
        "trained heads.",
    ),
)
"""Claims that a command other than `headwise study` asks."""


def write_ledger(folders: Sequence[Path], out: Path) -> tuple[Path, Path]:
    """Write `claims.html` and `claims.md` into `out` from the studies in these directories; their
    paths. Raises `UserError` for a directory without findings."""
    return write_claims(ledger(folders), out)


def ledger(folders: Sequence[Path]) -> list[LedgerRow]:
    """A row for each claim and each study that asks it, in the order of the presets; then the
    claims of other studies, and those of other commands."""
    found = [row for folder in folders for row in _answers(folder, read_findings(folder))]
    rows = []
    for name in PRESETS:
        for row in _open(name):
            same = [one for one in found if (one.study, one.claim) == (name, row.claim)]
            rows += [replace(one, command=row.command, takes=row.takes) for one in same] or [row]
    shown = {(row.study, row.claim) for row in rows}
    others = [row for row in found if (row.study, row.claim) not in shown]
    return [*rows, *others, *_OTHER_COMMANDS]


def _open(name: str) -> list[LedgerRow]:
    """The claims of a preset, before anybody asked them."""
    study = preset(name, "small")
    return [
        LedgerRow(
            study=name,
            claim=claim.name,
            says=claim.says,
            source=claim.source,
            paper=claim.paper,
            command=f"headwise study run {name} --budget small --out runs/{name}",
            takes=study.takes,
        )
        for claim in study.claims
    ]


def _answers(folder: Path, findings: StudyFindings) -> list[LedgerRow]:
    """The claims that a study asks, with what it says of them so far."""
    return [
        LedgerRow(
            study=findings.name,
            claim=claim.name,
            says=claim.says,
            source=claim.source,
            paper=claim.paper,
            command=findings.command,
            takes="",
            answer=claim.answer,
            ours=claim.words,
            seeds=min((one.seeds for one in claim.tested), default=0),
            scale=findings.scale,
            decides=_decides(claim),
            folder=str(folder),
        )
        for claim in findings.claims
    ]


def _decides(claim: ClaimFound) -> str:
    """What would decide a claim that is open; empty for the others."""
    if claim.answer != "cannot tell":
        return ""
    open_ = [one for one in claim.tested if one.answer == "cannot tell"]
    if any(one.seeds < FEWEST_SEEDS for one in open_):
        return f"{FEWEST_SEEDS} seeds"
    if any(one.seeds_needed is None for one in open_):
        return "more test images"
    needed = max((one.seeds_needed or 0 for one in open_), default=0)
    return f"about {max(needed, 1 + min(one.seeds for one in open_))} seeds" if open_ else ""
