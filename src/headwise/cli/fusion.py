"""`headwise fusion`, apart from the other commands: they need not wait for what it imports."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from headwise.cli.flags import given, parse
from headwise.config import chosen
from headwise.data import DataConfig
from headwise.encoders.build import representation_size
from headwise.errors import UserError
from headwise.fusion.config import FusionConfig
from headwise.fusion.lab import measure_fusion
from headwise.fusion.noise_audit import Audit, audit_table, noise_audits, shipped_heads
from headwise.model.build import build_model
from headwise.model.trained import load_config
from headwise.report import write_run_report
from headwise.report.prose.fusion import conclusion
from headwise.report.tables.fusion import text_table
from headwise.runs.directory import FUSION_FILE, Run
from headwise.runtime.progress import progress


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Say whether, where and why the attention of a finished run's head brings the samples of a
    class together, against its controls. Adds fusion.npz, results and figures to the run."""

    run: Positional[Path | None] = None
    """The run directory; not needed for --noise-audit."""
    data: DataConfig = field(default_factory=DataConfig)
    fusion: Annotated[FusionConfig, arg(name="")] = field(default_factory=FusionConfig)
    noise_audit: bool = False
    """Instead train heads on independent noise, to see whether what a row sees gives its twin
    away: the head of the run, or without a run every head there is."""
    quiet: bool = False
    """No progress."""


def fusion_command(words: list[str]) -> None:
    command = parse("fusion", Fusion, words)
    run = None if command.run is None else Run.open(command.run, finished=not command.noise_audit)
    if command.noise_audit:
        print(audit_table(_audits(run, command.fusion.seed, quiet=command.quiet)))
    elif run is None:
        raise UserError("fusion needs a run directory; got none; --noise-audit needs none")
    else:
        if not given(words, "--data.spec"):
            own = load_config(run).data
            command = parse("fusion", Fusion(run=run.path, data=own), words)
        _measure(run, command)


def _audits(run: Run | None, seed: int, *, quiet: bool) -> list[Audit]:
    """Of the run's head, or of every head that there is."""
    configs, p = list(shipped_heads().values()), 64
    if run is not None:
        config, model = build_model(load_config(run))
        size = chosen(config.augment.size)
        configs, p = [config.head], representation_size(model.encoder, config.encoder, size)
    found = []
    with progress("noise audit", len(configs), quiet=quiet) as show:
        for done, config in enumerate(configs, 1):
            found += noise_audits(config, p=p, seed=seed)
            show(done, found[-1].head)
    return found


def _measure(run: Run, command: Fusion) -> None:
    measure_fusion(run.path, command.data, command.fusion, quiet=command.quiet)
    arrays = run.fusion_arrays
    for line in conclusion(arrays, load_config(run).head):
        print(line)
    print(f"\n{text_table(arrays)}\n")
    page = write_run_report(run.path)
    print(f"Arrays: {run.path / FUSION_FILE}")
    print(f"Report: {page}")
