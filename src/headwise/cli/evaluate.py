"""`headwise evaluate`: measure a finished run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.images import own_images
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.evaluation.config import PROTOCOLS, EvaluateConfig, protocol
from headwise.runs.results import Result


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a finished run. The results are added to its results.json and to its report.html."""

    run: Annotated[Path, Role.POSITIONAL]
    """The run directory."""
    data: DataConfig | None = None
    accept_changed_data: bool = False
    """Go on if the images of pretraining have changed since."""
    evaluate: Annotated[EvaluateConfig, Role.UNPREFIXED] = field(default_factory=EvaluateConfig)
    own: Annotated[OwnFlags, Role.UNPREFIXED] = field(default_factory=OwnFlags)
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""


def run(given: Given[Evaluate]) -> None:
    from headwise.evaluation.evaluate import measure
    from headwise.report import evaluation_text, write_run_report

    command = given.command({"data": own_images(given, given.need("run"))})
    refuse_idle(given, command.evaluate)
    accept = command.accept_changed_data
    opened = with_code(command.run, command.own)
    measured = measure(opened, command.data, command.evaluate, accept_changed_data=accept)
    say(evaluation_text(command.run, measured), "", _HEADING)
    say(*(_line(name, result) for name, result in measured.results.items()))
    say("", f"Report: {write_run_report(command.run)}")


def refuse_idle(given: Given[Evaluate], config: EvaluateConfig) -> None:
    """Raise `UserError` where a flag was given for a protocol that is not asked for."""
    for name in PROTOCOLS:
        flags = given.under(name)
        if flags and not {name, "all"} & set(config.protocols):
            raise UserError(
                f"{flags[0]} has an effect only with the protocol {name}; "
                f"got --protocols {' '.join(config.protocols)}; add it, or leave {flags[0]} out"
            )
    asked = [protocol(name, config) for name in PROTOCOLS if {name, "all"} & set(config.protocols)]
    reads_taps = any(one.on_features for one in asked)
    idle = {
        "taps": (not reads_taps, "that reads taps, such as linear"),
        "baselines": (not reads_taps, "that reads taps, such as linear"),
        "seeds": (not any(one.description.draws for one in asked), "that draws, such as linear"),
    }
    for path, (unused, which) in idle.items():
        if unused and path in given.values:
            raise UserError(
                f"--{path} has an effect only with a protocol {which}; "
                f"got --protocols {' '.join(config.protocols)}; leave it out"
            )


_HEADING = f"{'':32} {'value':>9}  [95 % interval over test images]"


def _line(name: str, result: Result) -> str:
    """Value, 95 % interval, standard deviation over seeds, and how many stand behind them."""
    words = [f"{name:32} {result.value:9.4f}"]
    if result.interval is not None:
        low, high = result.interval
        words.append(f"[{low:.4f}, {high:.4f}]")
    if result.std is not None:
        words.append(f"σ {result.std:.4f} over {len(result.seeds)} seeds")
    return "  ".join([*words, f"n = {result.n}"])


LINE = CommandLine(
    kind=Evaluate,
    example="headwise evaluate runs/photos --data ./labelled --protocols knn linear --taps h z",
    usual=(
        "data.spec protocols taps seeds baselines against data.limit transfer.targets seed device "
        "threads"
    ),
    run=run,
)
