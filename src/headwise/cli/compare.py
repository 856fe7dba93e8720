"""`headwise compare`: the same encoder under several heads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role
from headwise.cli.own_flags import handed_in
from headwise.cli.pretrain import refuse_beside_resume, refuse_idle, starting_config
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.errors import UserError
from headwise.heads import COMPARED, HeadName
from headwise.model.config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Pretrain the same encoder under several heads, evaluate each, and write a report."""

    out: Path | None = None
    """The directory to create for the runs, summary.json and report.html; required unless --resume
    is given."""
    resume: Path | None = None
    """A comparison to continue, with the settings that it has; no other flags can be given with it
    but --threads, --quiet, if its images are elsewhere now --data, and the own code that it was
    made with."""
    recipe: str = "small"
    """The named settings to start from: default, small, demo, cifar10, speedrun-cifar10, imagenet,
    deepfusion, deepfusion-first, deepfusion-later or transfusion (docs/commands.md)."""
    config: Path | None = None
    """A run's config.json to start from, in place of a recipe."""
    heads: tuple[HeadName, ...] = COMPARED
    """The heads to compare. The --head.* flags change the one that --head names."""
    seeds: int = 5
    """Runs of each head, with the seeds --seed, --seed + 1 and so on. With fewer than five the
    report gives numbers and no verdict on the heads."""
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
    from headwise.comparison.compare import CompareConfig, compare, resume_comparison
    from headwise.report import comparison_text

    if given.values.get("resume") is not None:
        refuse_beside_resume(given)
        out, quiet = given.need("resume"), given.command({}).quiet
        data, handed = given.values.get("data.spec"), handed_in(given.values)
        resume_comparison(out, data=data, handed=handed, quiet=quiet)
    else:
        out = given.need("out")
        command = given.command()
        refuse_idle(given, command.pretrain)
        changed, head = given.under("head"), command.pretrain.head.name
        if changed and head not in command.heads:
            raise UserError(
                f"{changed[0]} is for the head {head}, which must be among --heads; "
                f"got --heads {' '.join(command.heads)}; add it, or leave {changed[0]} out"
            )
        config = CompareConfig(
            pretrain=command.pretrain,
            heads=command.heads,
            seeds=command.seeds,
            scratch=command.scratch,
        )
        compare(config, out, quiet=command.quiet)
    say(comparison_text(out), f"Report: {out / 'report.html'}")


LINE = CommandLine(
    kind=Compare,
    example="headwise compare --data ./labelled --heads identity mlp transformer --out runs/heads",
    usual=(
        "data.spec out heads seeds recipe encoder.name epochs batch_size optim.lr data.limit "
        "seed device resume quiet"
    ),
    run=run,
    bases=lambda given: {"pretrain": starting_config(given, "small")},
)
