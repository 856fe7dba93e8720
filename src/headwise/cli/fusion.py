"""`headwise fusion`: does the attention of a run's head bring classes together?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.images import own_images
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.data import DataConfig
from headwise.encoders.build import representation_size
from headwise.errors import UserError
from headwise.fusion.config import FusionConfig
from headwise.fusion.lab import measure_fusion
from headwise.fusion.noise_audit import audit_table, shipped_heads
from headwise.fusion.seed_runs import SEEDS_FILE, fusion_over_seeds
from headwise.model.build import build_model
from headwise.model.noise_audit import Audit, noise_audits
from headwise.model.trained import load_config
from headwise.report import write_run_report, write_seeds_report
from headwise.report.prose.fusion import conclusion
from headwise.report.prose.fusion_seeds import conclusion_over_seeds
from headwise.report.reading.fusion import short_runs
from headwise.report.reading.training import too_short
from headwise.report.tables.fusion import seeds_table, text_table
from headwise.runs.directory import FUSION_FILE, Run
from headwise.runtime.progress import progress

_OF_THE_AUDIT = ("run", "noise_audit", "head", "encoder", "allow_code", "seed", "threads", "quiet")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Test whether, where and why the attention of a finished run's head brings the images of a
    class together, against controls. Adds fusion.npz, results and figures to the run. One run
    describes its network. Five runs of other seeds make a claim about their head."""

    run: Annotated[tuple[Path, ...] | None, Role.POSITIONAL] = None
    """The run directory, or those of several runs that differ in their seed alone. --noise-audit
    can do without."""
    out: Path | None = None
    """A directory to create for what several runs show together: fusion-seeds.json and
    report.html. None: it is only printed."""
    data: DataConfig | None = None
    accept_changed_data: bool = False
    """Go on if the images of pretraining have changed since."""
    fusion: Annotated[FusionConfig, Role.UNPREFIXED] = field(default_factory=FusionConfig)
    noise_audit: bool = False
    """Instead train heads on independent noise, to see whether what a row attends to reveals its
    twin: the head of RUN, or every head if no run is given."""
    own: Annotated[OwnFlags, Role.UNPREFIXED] = field(default_factory=OwnFlags)
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""
    quiet: bool = False
    """Show no progress."""


def run(given: Given[Fusion]) -> None:
    if given.values.get("noise_audit"):
        _audit(given)
        return
    runs = given.need("run")
    command = given.command({"data": own_images(given, runs[0])})
    if len(runs) > 1:
        _over_seeds(command, runs)
        return
    if command.out is not None:
        raise UserError(
            "--out is for what several runs show together; got one run, which keeps its own "
            "results; leave --out out"
        )
    _describe(command, runs[0])


def _describe(command: Fusion, path: Path) -> None:
    """One run: what its network does."""
    measure_fusion(
        with_code(path, command.own),
        command.data,
        command.fusion,
        accept_changed_data=command.accept_changed_data,
        quiet=command.quiet,
    )
    opened = Run.open(path)
    arrays = opened.fusion_arrays
    say(f"On {arrays['spec']}, {arrays['split']} images:")
    if short := too_short(opened.metrics()):
        say(short)
    say(*conclusion(arrays, load_config(opened).head))
    say(f"\n{text_table(arrays)}\n")
    page = write_run_report(path)
    say(f"Arrays: {path / FUSION_FILE}", f"Report: {page}")


def _over_seeds(command: Fusion, runs: Sequence[Path]) -> None:
    """Several runs: what their head does."""
    result = fusion_over_seeds(
        [with_code(run, command.own) for run in runs],
        command.data,
        command.fusion,
        out=command.out,
        accept_changed_data=command.accept_changed_data,
        quiet=command.quiet,
    )
    say(*short_runs(result), *conclusion_over_seeds(result))
    say("\nGain, and its excess over h and over input rows ± half of the 95 % interval:")
    say(seeds_table(result.found).text())
    if command.out is not None:
        page = write_seeds_report(command.out)
        say(f"\nNumbers: {command.out / SEEDS_FILE}", f"Report: {page}")


def _audit(given: Given[Fusion]) -> None:
    idle = [
        f.name for f in given.line.flags if f.path in given.values and f.path not in _OF_THE_AUDIT
    ]
    if idle:
        raise UserError(f"{idle[0]} has no effect on --noise-audit; leave one of them out")
    command = given.command()
    if command.run is not None and len(command.run) > 1:
        raise UserError(f"--noise-audit takes one run; got {len(command.run)}; name one")
    opened = None
    if command.run is not None:
        opened = Run.open(with_code(command.run[0], command.own), finished=False)
    say(audit_table(_audits(opened, command.fusion.seed, quiet=command.quiet)))


def _audits(run: Run | None, seed: int, *, quiet: bool) -> list[Audit]:
    """Audits of the run's head, or of every head if there is no run."""
    configs, p = list(shipped_heads().values()), 64
    if run is not None:
        config = load_config(run)
        model = build_model(config)
        size = config.augment.size
        configs, p = [config.head], representation_size(model.encoder, config.encoder, size)
    found = []
    with progress("noise audit", len(configs), quiet=quiet) as show:
        for done, config in enumerate(configs, 1):
            found += noise_audits(config, p=p, seed=seed)
            show(done, found[-1].head)
    return found


LINE = CommandLine(
    kind=Fusion,
    example="headwise fusion runs/transformer --data ./labelled",
    usual=(
        "data.spec out batch_size batches permutations over_training noise_audit data.limit seed "
        "device quiet"
    ),
    run=run,
)
