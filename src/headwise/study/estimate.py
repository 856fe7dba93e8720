"""What a study would run, and about how long that takes, before anything runs."""

from collections.abc import Sequence

from headwise.comparison.duration import training_seconds
from headwise.report.words import counted, duration
from headwise.runtime import hardware
from headwise.study.design import Cell, Study, arm_name, arms, cells
from headwise.study.place import Opener
from headwise.study.work import opener

_MOST_TIMED = 6
"""So many arms are timed; with more, those that are evenly apart in the plan."""


def shown(study: Study) -> str:
    """The plan of a study and an estimate of its time."""
    every, opened = cells(study), opener()
    names = [arm_name(levels) for levels in arms(study)]
    lines = [
        study.asks,
        "",
        f"{counted(len(names), 'arm')} × {counted(study.seeds, 'seed')} = "
        f"{counted(len(every), 'run')}:",
        *(f"  {name}" for name in names),
        "",
        f"measured of each: {', '.join(study.evaluate.protocols)} at "
        f"{', '.join(study.evaluate.taps)}",
        *(f"asks: {claim.says} ({claim.source})" for claim in study.claims),
        "",
        estimated(study, every, opened),
    ]
    return "\n".join([*lines, study.takes] if study.takes else lines)


def estimated(study: Study, every: Sequence[Cell], opened: Opener) -> str:
    """In words: the time to train all runs, from a few timed steps of some arms, with its error."""
    first = every[: len(every) // study.seeds]
    chosen = first
    if len(first) > _MOST_TIMED:
        chosen = [first[i * (len(first) - 1) // (_MOST_TIMED - 1)] for i in range(_MOST_TIMED)]
    seconds = [training_seconds(one.config, opened(one.config.data).train) for one in chosen]
    mean = sum(seconds) / len(seconds)
    total = mean * len(every)
    spread = (max(seconds) - min(seconds)) / 2 * len(every) / len(seconds) ** 0.5
    error = max(0.2 * total, spread if len(chosen) < len(first) else 0.0)
    return (
        f"training takes about {duration(total)} (± {duration(error)}) on this machine's "
        f"{counted(hardware.usable_cores(), 'core')}, by a few timed steps of "
        f"{counted(len(chosen), 'arm')}; measuring comes on top"
    )
