"""`headwise evaluate`, apart from the other commands: they need not wait for what it imports."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from headwise.cli.flags import given, parse
from headwise.data import DataConfig
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.model.trained import load_config
from headwise.report import run_text, write_run_report
from headwise.runs.directory import Run
from headwise.runs.results import Result


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a finished run; results are added to its results.json and to its report.html."""

    run: Positional[Path]
    """The run directory."""
    data: DataConfig = field(default_factory=DataConfig)
    evaluate: Annotated[EvaluateConfig, arg(name="")] = field(default_factory=EvaluateConfig)


def evaluate_command(words: list[str]) -> None:
    command = parse("evaluate", Evaluate, words)
    if not given(words, "--data.spec"):
        own = load_config(Run.open(command.run)).data
        command = parse("evaluate", Evaluate(run=command.run, data=own), words)
    results = evaluate(command.run, command.data, command.evaluate)
    for name, result in results.items():
        print(_line(name, result))
    page = write_run_report(command.run)
    print(run_text(command.run))
    print(f"Report: {page}")


def _line(name: str, result: Result) -> str:
    """Value, 95 % interval, standard deviation over seeds, and how many stand behind them."""
    words = [f"{name:32} {result.value:9.4f}"]
    if result.interval is not None:
        low, high = result.interval
        words.append(f"[{low:.4f}, {high:.4f}]")
    if result.std is not None:
        words.append(f"± {result.std:.4f} over {len(result.seeds)} seeds")
    return "  ".join([*words, f"n = {result.n}"])
