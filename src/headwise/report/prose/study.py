"""What was asked of a study and how far it is, in plain words."""

from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.report.reading.study import ClaimFound, StudyFindings
from headwise.report.tables.study import arms_tables
from headwise.report.words import counted, listed

_AT_ONCE = 3
"""Measures that stand beside each other in a terminal."""


def opening(findings: StudyFindings) -> list[str]:
    """The question, the scale, how many runs are done, and what has no verdict yet."""
    if not findings.arms:
        return [findings.asks, f"Scale: {findings.scale}."]
    return [
        findings.asks,
        f"Scale of the runs: {findings.scale}.",
        _runs(findings),
        *_seeds(findings),
    ]


def answers_in_words(findings: StudyFindings) -> str:
    """`2 supported, 1 cannot tell`."""
    answers = [claim.answer for claim in findings.claims]
    return ", ".join(f"{answers.count(answer)} {answer}" for answer in dict.fromkeys(answers))


def study_words(findings: StudyFindings) -> str:
    """A study for the terminal: its arms, what is open or failed, and its answers."""
    blocks = [
        " ".join(opening(findings)),
        *(table.text() for table in arms_tables(findings, _AT_ONCE)),
    ]
    if any(arm.plus_minus for arm in findings.arms):
        blocks.append("± is half of the 95 % interval")
    failed = [f"  {cell}: {said}" for cell, said in findings.failed.items()]
    if failed:
        blocks.append("\n".join(["Failed:", *failed]))
    return "\n\n".join([*blocks, *map(_answer, findings.claims)]) + "\n"


def _answer(claim: ClaimFound) -> str:
    return f"{claim.says} ({claim.source})\n  {claim.answer}: {claim.words}"


def _runs(findings: StudyFindings) -> str:
    done = len({run for arm in findings.arms for run in arm.runs})  # two arms may share one
    failed, missing = len(findings.failed), findings.missing
    total = done + failed + missing
    if done == total:
        return f"All {counted(total, 'run')} are done: {_arms(findings)}."
    open_ = [f"{failed} failed"] if failed else []
    open_ += [f"{missing} {'has' if missing == 1 else 'have'} not run yet"] if missing else []
    return f"{done} of {counted(total, 'run')} are done ({_arms(findings)}); {listed(open_)}."


def _arms(findings: StudyFindings) -> str:
    arms = counted(len(findings.arms), "arm")
    return f"{arms}, {counted(findings.seeds, 'seed')} each"


def _seeds(findings: StudyFindings) -> list[str]:
    """What keeps it from a verdict."""
    fewest = min((len(arm.seeds) for arm in findings.arms), default=0)
    if fewest >= FEWEST_SEEDS or not findings.claims:
        return []
    few = sum(len(arm.seeds) < FEWEST_SEEDS for arm in findings.arms)
    if few == len(findings.arms) and all(len(arm.seeds) == fewest for arm in findings.arms):
        return [f"{fewest} of {FEWEST_SEEDS} seeds: no verdict."]
    return [
        f"{counted(few, 'arm')} {'has' if few == 1 else 'have'} fewer than {FEWEST_SEEDS} seeds: "
        "no verdict yet on the claims that need them."
    ]
