"""`headwise compare`: the same encoder under several heads or other settings."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headwise.cli.flags import Role
from headwise.cli.own_flags import handed_in
from headwise.cli.pretrain import refuse_beside_resume, refuse_idle, starting_config
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.errors import UserError
from headwise.heads import COMPARED, HeadName
from headwise.model.config import PretrainConfig

if TYPE_CHECKING:
    from headwise.comparison.compare import CompareConfig


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Pretrain the same encoder under several heads or other settings, evaluate each, and write a
    report."""

    out: Path | None = None
    """The directory to create for the runs, summary.json and report.html; required unless --resume
    is given."""
    resume: Path | None = None
    """A comparison to continue, with the settings that it has. --heads or --arms add to what it
    compares, and --seeds gives it more seeds. No other flags can be given with it but --threads,
    --quiet, if its images are elsewhere now --data, and the own code that it was made with."""
    runs: tuple[Path, ...] = ()
    """Finished runs to compare, in place of training: runs whose settings are the same except for
    the seed are one arm. They are measured where they have no results yet (docs/commands.md). No
    other flags can be given but --out, --no-scratch, --threads, --quiet, if their images are
    elsewhere now --data, and the own code that they were made with."""
    recipe: str = "small"
    """The named settings to start from: default, small, demo, cifar10, speedrun-cifar10, imagenet,
    deepfusion, deepfusion-first, deepfusion-later or transfusion (docs/commands.md)."""
    config: Path | None = None
    """A run's config.json to start from, in place of a recipe."""
    heads: tuple[HeadName, ...] = COMPARED
    """The heads to compare. The --head.* flags change the one that --head names."""
    arms: tuple[str, ...] = ()
    """What to compare, in place of --heads: heads with other settings, written as
    HEAD:setting=value,setting=value (mlp:head.width=64,temperature=0.2)."""
    seeds: int = 5
    """Runs of each arm, with the seeds --seed, --seed + 1 and so on. With fewer than five the
    report gives numbers and no verdict on the arms."""
    scratch: bool = True
    """Also train the encoder from scratch on the same labels, as a baseline beside raw pixels and
    the untrained encoder."""
    allow_code: bool = False
    """Execute the copies of own code that the comparison of --resume or the run of --config holds.
    Only for those that you trust."""
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""
    quiet: bool = False
    """Show no progress."""
    pretrain: Annotated[PretrainConfig, Role.UNPREFIXED] = field(default_factory=PretrainConfig)


def run(given: Given[Compare]) -> None:
    from headwise.comparison.compare import compare, resume_comparison
    from headwise.comparison.elsewhere import compare_runs
    from headwise.report import comparison_text

    if "heads" in given.values and "arms" in given.values:
        raise UserError("--heads and --arms both say what to compare; leave one out")
    if given.values.get("resume") is not None:
        refuse_beside_resume(given)
        out = given.need("resume")
        resume_comparison(
            out,
            data=given.values.get("data.spec"),
            handed=handed_in(given.values),
            arms=given.values.get("arms") or given.values.get("heads") or (),
            seeds=given.values.get("seeds"),
            quiet=given.command({}).quiet,
        )
    elif given.values.get("runs"):
        _refuse_beside_runs(given)
        out, command = given.need("out"), given.command({})
        place = given.values.get("data.spec")
        handed = handed_in(given.values)
        compare_runs(command.runs, out, data=place, handed=handed, scratch=command.scratch)
    else:
        out, command = given.need("out"), given.command()
        compare(_config(given, command), out, quiet=command.quiet)
    say(comparison_text(out), f"Report: {out / 'report.html'}")


def _config(given: Given[Compare], command: Compare) -> "CompareConfig":
    from headwise.comparison.compare import CompareConfig

    refuse_idle(given, command.pretrain)
    arms, said = command.arms or command.heads, "--arms" if command.arms else "--heads"
    changed, head = given.under("head"), command.pretrain.head.name
    if changed and head not in [arm.partition(":")[0] for arm in arms]:
        raise UserError(
            f"{changed[0]} is for the head {head}, which must be among {said}; "
            f"got {said} {' '.join(arms)}; add it, or leave {changed[0]} out"
        )
    return CompareConfig(
        pretrain=command.pretrain, arms=arms, seeds=command.seeds, scratch=command.scratch
    )


def _refuse_beside_runs(given: Given[Compare]) -> None:
    """Raise `UserError` where a flag was given that runs which are there cannot take."""
    taken = ("runs", "out", "data.spec", "scratch", "threads", "quiet", "allow_code")
    taken += ("head.own", "encoder.own", "objective.own", "augment.own")
    for flag in given.line.flags:
        if flag.path in given.values and flag.path not in taken:
            raise UserError(
                f"--runs compares runs with the settings that they have; got {flag.name}; "
                "leave it out"
            )


LINE = CommandLine(
    kind=Compare,
    example="headwise compare --data ./labelled --heads identity mlp transformer --out runs/heads",
    usual=(
        "data.spec out heads arms seeds recipe encoder.name epochs data.limit "
        "seed device resume runs quiet"
    ),
    run=run,
    bases=lambda given: {"pretrain": starting_config(given, "small")},
)
