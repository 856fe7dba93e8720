"""findings.json of a study: what every arm reached, and what is shown of each claim."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headwise.config import check_fields, from_dict
from headwise.errors import UserError
from headwise.files import read_object, safe_name

FINDINGS_FILE = "findings.json"
Levels = dict[str, str]
"""A level of some axes, by the axis's name."""
Expected = Literal["above", "below", "alike"]
Answer = Literal["supported", "contradicted", "equivalent", "cannot tell"]
"""What a study says of a claim, and no more."""
Drawn = Literal["lines", "heatmap", "bars"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the study's page."""

    name: str
    """Stem of its files."""
    title: str
    kind: Drawn
    measures: tuple[str, ...] = ("linear/h",)
    """Keys of results.json; several are lines or bars of their own."""
    along: str
    """The axis along x: of a heatmap its columns, of bars its groups."""
    by: str = ""
    """The axis that lines, rows or bars stand for; empty: none."""
    levels: Levels = field(default_factory=dict)
    """Only arms with these levels."""
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    """The paper's values by line (level of `by`, or measure) and level of `along`, in the unit of
    the paper: `{"mlp": {"32": 66.0}}`."""
    paper_source: str = ""
    """Where they are from, and on which data: `SimCLR, Figure 8, ImageNet`."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure that the study drew itself: `figures/NAME.png` in its directory."""

    name: str
    """Stem of its files."""
    title: str
    description: str
    """What is to be seen."""

    def __post_init__(self) -> None:
        check_fields(self)
        if safe_name(self.name) != self.name or self.name.startswith("."):
            raise UserError(f"the name of a picture must be the stem of a file; got {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class ArmFound:
    """What the runs of one arm reached."""

    levels: Levels
    name: str
    """Its levels in words."""
    seeds: tuple[int, ...]
    """Of its finished runs."""
    values: dict[str, list[float]]
    """By measure, for each of its seeds."""
    plus_minus: dict[str, float]
    """Half of the 95 % interval of the mean, by measure: over seeds and test images where there are
    five seeds or more; missing where it is not known."""
    units: dict[str, str]
    """By measure: `share` is printed in percent."""
    runs: tuple[str, ...]
    """The directory of each run, as seen from the study."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One contrast of a claim."""

    name: str
    """`mlp − linear`."""
    measure: str
    expects: Expected
    unit: str
    """`points`, `points per doubling`, or the unit of the measure."""
    value: float
    """In shares where the unit is points."""
    interval: tuple[float, float] | None = None
    """95 %, for other seeds and other test images; adjusted for all contrasts of the claim where
    there are five seeds. None with fewer than three."""
    p_value: float | None = None
    """Adjusted; None with fewer than five seeds."""
    answer: Answer
    verdict: str
    """The words of the test: `shown over 5 seeds`, `not shown`, `equivalent within 3 points`, or
    `3 of 5 seeds: no verdict`."""
    seeds: int
    seeds_needed: int | None = None
    """How many would show a difference as large as the margin in four cases of five; None where it
    is not known, or takes more test images."""


@dataclass(frozen=True, kw_only=True)
class ClaimFound:
    """What the study says of one claim."""

    name: str
    says: str
    source: str
    paper: str
    answer: Answer
    words: str
    """One sentence: the answer with its numbers, and what would decide it where it cannot tell."""
    tested: tuple[Tested, ...]


@dataclass(frozen=True, kw_only=True)
class StudyFindings:
    """What a study found so far."""

    version: int = 1
    name: str
    asks: str
    scale: str
    """`5,000 images of ./cifar10, resnet-small, 13 epochs`."""
    axes: dict[str, list[str]]
    """The levels of every axis, in order."""
    seeds: int
    """Runs of each arm, when it is finished."""
    arms: tuple[ArmFound, ...]
    claims: tuple[ClaimFound, ...]
    figures: tuple[Figure, ...]
    pictures: tuple[Picture, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    """What the cells that failed said, by cell."""
    missing: int = 0
    """Cells that have not run yet."""
    commit: str = ""
    """Of the runs; several with commas."""
    machine: str = ""
    hours: float = 0.0
    """Of training, all runs together."""
    command: str = ""
    """What runs the study again."""


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One claim, as one study answers it, or as nobody has asked it yet."""

    study: str
    """The study that asks it."""
    claim: str
    """Its name."""
    says: str
    source: str
    paper: str
    """These three as in `ClaimFound`."""
    command: str
    """What asks it."""
    takes: str
    """How long that takes."""
    answer: Answer | None = None
    """None: it was not asked yet."""
    ours: str = ""
    """The numbers behind the answer."""
    seeds: int = 0
    scale: str = ""
    decides: str = ""
    """What would decide it, where it is open."""
    folder: str = ""
    """The study's directory."""


def read_findings(folder: Path) -> StudyFindings:
    """Raises `UserError` where a directory is no study with findings."""
    path = folder / FINDINGS_FILE
    if not path.is_file():
        raise UserError(
            f"report: {folder} must be a study that has findings; it has no {FINDINGS_FILE}; "
            f"run it, or collect them: headwise study report {folder}"
        )
    return from_dict(StudyFindings, read_object(path), str(path))
