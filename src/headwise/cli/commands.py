"""The commands: from command-line words to configs, and to the functions that do the work."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from headwise.cli.flags import given, long_flags, parse
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.heads import COMPARED, HeadName
from headwise.model.config import PretrainConfig
from headwise.model.config_file import read_config
from headwise.pretraining.recipes import recipe
from headwise.runtime.hardware import Device, Precision
from headwise.runtime.interrupts import Interrupted

Flat = arg(name="")  # the fields of a nested config without its name before them


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain an encoder on images."""

    out: Path | None = None
    """The run directory to make."""
    resume: Path | None = None
    """A run directory to go on with, from its last checkpoint; takes no other settings."""
    recipe: str = "default"
    """The settings to start from: default, small, demo, cifar10, imagenet, deepfusion and others
    (docs/commands.md)."""
    config: Path | None = None
    """A config.json to start from, in place of a recipe."""
    quiet: bool = False
    """No progress."""
    pretrain: Annotated[PretrainConfig, Flat] = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Pretrain the same encoder under several heads, and say what each did."""

    out: Path | None = None
    """The directory to make, for the runs, summary.json and report.html."""
    resume: Path | None = None
    """A comparison to go on with; takes no other settings."""
    recipe: str = "small"
    """The settings to start from: small, default, demo, cifar10, imagenet, deepfusion and others
    (docs/commands.md)."""
    config: Path | None = None
    """A run's config.json to start from, in place of a recipe."""
    heads: tuple[HeadName, ...] = COMPARED
    """Heads to compare."""
    seeds: int = 1
    """Runs of each head, with seeds from --seed on; more than one gives standard deviations."""
    quiet: bool = False
    """No progress."""
    pretrain: Annotated[PretrainConfig, Flat] = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Write the representation h of every image to a parquet file, with its path and label."""

    run: Positional[Path]
    """A finished run."""
    images: Positional[str]
    """Images, as for --data."""
    out: Path
    """The parquet file to make. A call that was cut short goes on where it was."""
    data: DataConfig = field(default_factory=DataConfig)
    batch_size: int = 256
    """Images encoded at a time."""
    device: Device = "auto"
    """auto: a GPU where there is one."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast where the hardware is fast at it, else float32."""
    workers: int | None = None
    """Processes that decode image files. None: one a core."""
    quiet: bool = False
    """No progress."""


def run(name: str, words: Sequence[str]) -> int:
    """Run a command other than `doctor`; returns the exit code."""
    words = long_flags(words)
    try:
        match name:
            case "pretrain":
                _pretrain(words)
            case "compare":
                _compare(words)
            case "evaluate":
                from headwise.cli.evaluate import evaluate_command

                evaluate_command(words)
            case "fusion":
                from headwise.cli.fusion import fusion_command

                fusion_command(words)
            case "theory":
                from headwise.cli.theory import theory_command

                theory_command(words)
            case "embed":
                _embed(words)
    except Interrupted as stop:
        print(f"headwise: {stop}", file=sys.stderr)
        return stop.exit_code
    return 0


def _pretrain(words: list[str]) -> None:
    from headwise.pretraining.loop import pretrain, resume

    if given(words, "--resume") is not None:
        command = parse("pretrain", Pretrain(), _only_resume(words))
        assert command.resume is not None, "the word was there"
        done = resume(command.resume, quiet=command.quiet)
    else:
        start = Pretrain(pretrain=_start("pretrain", words, "default"))
        command = parse("pretrain", start, words)
        done = pretrain(command.pretrain, _needed(command.out), quiet=command.quiet)
    if os.environ.get("RANK", "0") == "0":
        print(f"{done.path} is done: its encoder is {done.path / 'encoder.safetensors'}")


def _compare(words: list[str]) -> None:
    from headwise.comparison.compare import CompareConfig, compare, resume_comparison
    from headwise.report import comparison_text

    if given(words, "--resume") is not None:
        command = parse("compare", Compare(), _only_resume(words))
        assert command.resume is not None, "the word was there"
        out = command.resume
        resume_comparison(out, quiet=command.quiet)
    else:
        start = Compare(pretrain=_start("compare", words, "small"))
        command = parse("compare", start, words)
        out = _needed(command.out)
        config = CompareConfig(pretrain=command.pretrain, heads=command.heads, seeds=command.seeds)
        compare(config, out, quiet=command.quiet)
    print(comparison_text(out))
    print(f"Report: {out / 'report.html'}")


def _embed(words: list[str]) -> None:
    from headwise.features.table import embed

    command = parse("embed", Embed, words)
    rows = embed(
        command.run,
        dataclasses.replace(command.data, spec=command.images),
        command.out,
        batch_size=command.batch_size,
        device=command.device,
        precision=command.precision,
        workers=command.workers,
        quiet=command.quiet,
    )
    print(f"{command.out}: {rows} rows")


def _start(name: str, words: list[str], default: str) -> PretrainConfig:
    """The config that the flags then change: a file's or a recipe's."""
    file, chosen = given(words, "--config"), given(words, "--recipe")
    if file and chosen:
        raise UserError(f"{name} starts from --config or --recipe; got both; leave one out")
    if not file:
        return recipe(chosen or default)
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--config must be a file; {path} does not exist")
    return read_config(PretrainConfig, path)


def _only_resume(words: list[str]) -> list[str]:
    free = ("--resume", "--quiet", "--help", "-h")
    rest = [word for word in words if word.startswith("-") and word.partition("=")[0] not in free]
    if rest:
        raise UserError(
            f"--resume goes on with the settings it was started with; got {rest[0]}; leave it out"
        )
    return words


def _needed(out: Path | None) -> Path:
    if out is None:
        raise UserError(
            "--out must name a directory to make; got none; for example --out runs/first"
        )
    return out
