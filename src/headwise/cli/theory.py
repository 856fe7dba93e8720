"""`headwise theory`: the prediction of what attention over a batch does, and its checks."""

import dataclasses
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from headwise.cli.flags import Role
from headwise.cli.images import own_images
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.files import Json, write_json
from headwise.report.pages.rendering import write_drawings
from headwise.report.plots.drawing import Drawing, style
from headwise.runs.directory import refuse_existing
from headwise.runtime import hardware
from headwise.runtime.hardware import Device
from headwise.theory import checks
from headwise.theory.figures import map_figure, path_figure, phase_figure
from headwise.theory.map import Cosines, separation
from headwise.theory.overfusion import overfusion_demo
from headwise.theory.overfusion_figures import curvature_figure, escape_figure
from headwise.theory.studies import (
    Setup,
    agreement,
    batch_size_study,
    blocks_of,
    set_up,
    strength_study,
)
from headwise.theory.trained import BlockTheory, mean_block
from headwise.theory.trained_figures import (
    minimum_figure,
    share_figure,
    study_figure,
    trained_figure,
)


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Predict what attention over a batch does to its classes, and compare the prediction with
    simulation and, with --runs, with trained Transformer heads."""

    out: Path
    """The directory to create for figures, their data and theory.json."""
    runs: tuple[Path, ...] = ()
    """Finished runs with a Transformer head, on images with labels."""
    data: DataConfig | None = None
    accept_changed_data: bool = False
    """Go on if the images of pretraining have changed since."""
    studies: bool = False
    """Also study the heads of --runs at other batch sizes and augmentation strengths."""
    own: Annotated[OwnFlags, Role.UNPREFIXED] = field(default_factory=OwnFlags)
    seed: int = 0
    """Seed of the random batches."""
    device: Device = "auto"
    """The device that runs the heads of --runs. auto: a GPU if there is one."""
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""


class Part(NamedTuple):
    """What one part of the theory gives."""

    lines: list[str]
    """In plain words."""
    numbers: Json
    """For theory.json."""
    drawings: list[Drawing]


def run(given: Given[Theory]) -> None:
    command = given.command()
    idle = ["--studies"] * command.studies + given.under("data")
    idle += ["--device"] * ("device" in given.values)
    idle += ["--accept-changed-data"] * command.accept_changed_data
    if idle and not command.runs:
        raise UserError(f"{idle[0]} needs --runs, the heads to study; got none")
    refuse_existing(command.out, resumable=False)
    hardware.keep_freed_memory()
    setups = {
        run.name: set_up(
            with_code(run, command.own),
            given.command({"data": own_images(given, run)}).data,
            accept_changed_data=command.accept_changed_data,
            device=command.device,
        )
        for run in command.runs
    }
    if len(setups) < len(command.runs):
        raise UserError("--runs must be directories of different names; got one name twice")
    with style():
        parts = [_one_layer(command.seed), _many_layers(command.seed), _limits()]
        parts.append(_over_fusion(command.seed))
        if setups:
            parts.append(_trained(setups))
        if command.studies:
            parts += [_studied(name, setup) for name, setup in setups.items()]
    for part in parts:
        write_drawings(command.out, part.drawings)
    found = [part.numbers for part in parts]
    write_json(command.out / "theory.json", {key: one[key] for one in found for key in one})
    for part in parts:
        say(*part.lines)
    say(f"Figures and data: {command.out}")


def _one_layer(seed: int) -> Part:
    inside = list(checks.map_points(seed))
    outside = list(checks.points_outside(seed))
    most = max(point.error for point in inside)
    failed = {
        name: [point.error for other, point in outside if other == name] for name, _ in outside
    }
    lines = [
        f"One layer: the map is within {most:.1%} of {len(inside)} random batches in its range "
        "(of a' and b', or of 0.1 where they are smaller).",
        "Outside, share of batches off by more than 2 %: "
        + ", ".join(f"{name} {_share_off(errors):.0%}" for name, errors in failed.items())
        + ".",
    ]
    numbers = {
        "range": {
            "batches": len(inside),
            "largest_error": most,
            "mean_error": statistics.fmean(point.error for point in inside),
        },
        "outside": {
            name: {"batches": len(errors), "largest_error": max(errors), "off": _share_off(errors)}
            for name, errors in failed.items()
        },
    }
    return Part(lines, {"one_layer": numbers}, [map_figure(inside, outside)])


def _many_layers(seed: int) -> Part:
    diagrams = [checks.phases(batch, seed) for batch in checks.PHASE_BATCHES]
    points = [point for diagram in diagrams for point in diagram.points]
    same = sum(point.predicted == point.simulated for point in points)
    paths = checks.paths(seed)
    off = {
        path.name: max(
            abs(p - q)
            for one, other in zip(path.predicted, path.simulated, strict=True)
            for p, q in zip(one[:2], other[:2], strict=True)
        )
        for path in paths
    }
    lines = [
        f"{checks.PHASE_LAYERS} layers: {same} of {len(points)} random batches end as predicted "
        "(no fusion, fusion, over-fusion).",
        f"{len(paths[0].predicted) - 1} layers: a and b stay within {max(off.values()):.2f} of the "
        "path predicted from the first input.",
    ]
    numbers = {"phases": {"batches": len(points), "as_predicted": same}, "paths": off}
    drawings = [phase_figure(diagrams, checks.PHASE_LAYERS), path_figure(paths)]
    return Part(lines, numbers, drawings)


def _limits() -> Part:
    minima, shares = checks.minimum_checks(), checks.share_checks()
    by_size = [check.simulated / check.predicted for check in minima]
    by_share = [check.simulated / check.predicted for check in shares]
    lines = [
        f"Least tokens per class: simulated over predicted {min(by_size):.2f} to "
        f"{max(by_size):.2f} ({len(by_size)} settings).",
        f"Least share that augmentation must keep: simulated over predicted {min(by_share):.2f} "
        f"to {max(by_share):.2f} ({len(by_share)} settings).",
    ]
    numbers = {
        "least_per_class": [[check.predicted, check.simulated] for check in minima],
        "least_kept_share": [[check.predicted, check.simulated] for check in shares],
    }
    return Part(lines, numbers, [minimum_figure(minima), share_figure(shares)])


def _over_fusion(seed: int) -> Part:
    demo = overfusion_demo(seed)
    lines = [
        f"NT-Xent, {one.title}: gradient {one.gradient:.0e}, curvature from "
        f"{one.measured.min():.3f} to {one.measured.max():.3f}: a saddle."
        if one.measured.min() < 0 < one.measured.max()
        else f"NT-Xent, {one.title}: gradient {one.gradient:.0e}, no saddle."
        for one in demo.spectra
    ]
    left = [(one, one.escape.steps_to(demo.escaped)) for one in demo.descents]
    lines.append(
        "Steps to leave it, predicted and measured: "
        + ", ".join(f"noise {one.noise:.0e} {one.predicted}, {steps}" for one, steps in left)
        + "."
    )
    numbers = {
        "spectra": {
            one.title: {"gradient": one.gradient, "curvature": one.measured.tolist()}
            for one in demo.spectra
        },
        "steps": [
            {"noise": one.noise, "predicted": one.predicted, "measured": steps}
            for one, steps in left
        ],
    }
    drawings = [curvature_figure(demo.spectra), escape_figure(demo)]
    return Part(lines, {"over_fusion": numbers}, drawings)


def _trained(setups: dict[str, Setup]) -> Part:
    blocks = [
        (name, mean_block(column))
        for name, setup in setups.items()
        for column in zip(*blocks_of(setup), strict=True)
    ]
    lines = []
    for name in setups:
        mine = [block for run, block in blocks if run == name]
        a, b, apart = (
            f"{_error(mine, pick, 'predicted'):.3f} (no change: {_error(mine, pick, 'before'):.3f})"
            for pick in (_within, _between, separation)
        )
        gain = statistics.fmean(abs(one.predicted_gain / one.measured_gain - 1) for one in mine)
        fit = statistics.fmean(fit for one in mine for fit in one.beta_fit)
        lines.append(
            f"{name} on {setups[name].spec}: mean error of a' {a}, of b' {b}, of the separation of "
            f"classes {apart}, of the fusion gain {gain:.0%}; cosines explain {fit:.0%} of log "
            "attention."
        )
    numbers = [{"run": name, **_plain(block)} for name, block in blocks]
    return Part(lines, {"trained": numbers}, [trained_figure(blocks)])


def _studied(name: str, setup: Setup) -> Part:
    lines, numbers, drawings = [], {}, []
    for study, points in (
        ("batch size", batch_size_study(setup)),
        ("augmentation strength", strength_study(setup)),
    ):
        found = agreement(points)
        lines.append(
            f"{name} on {setup.spec}, {study}: log fusion gain changes by {found.change:.3f} on "
            f"average; predicted with an error of {found.error:.3f}, correlation "
            f"{found.correlation:.2f}."
        )
        kept = {key: value for key, value in found._asdict().items() if math.isfinite(value)}
        numbers[f"{study}/{name}"] = {**kept, "points": [point._asdict() for point in points]}
        drawings.append(study_figure(name, study, points))
    return Part(lines, numbers, drawings)


def _error(
    blocks: list[BlockTheory],
    pick: Callable[[Cosines], float],
    which: Literal["predicted", "before"],
) -> float:
    """Mean absolute difference to what is measured after the block."""
    guesses = [one.predicted if which == "predicted" else one.before for one in blocks]
    pairs = zip(guesses, blocks, strict=True)
    return statistics.fmean(abs(pick(guess) - pick(one.measured)) for guess, one in pairs)


def _within(cosines: Cosines) -> float:
    return cosines.within


def _between(cosines: Cosines) -> float:
    return cosines.between


def _share_off(errors: list[float]) -> float:
    return sum(error > 0.02 for error in errors) / len(errors)


def _plain(block: BlockTheory) -> Json:
    """For JSON."""
    found = block._asdict()
    for key in ("batch", "layer"):
        found[key] = dataclasses.asdict(found[key])
    for key in ("before", "predicted", "from_weights", "measured"):
        found[key] = found[key]._asdict()
    return found


LINE = CommandLine(
    kind=Theory,
    example="headwise theory --out theory --runs runs/transformer",
    usual="out runs studies data.spec data.limit seed device threads",
    run=run,
)
