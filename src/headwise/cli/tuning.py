"""`headwise study tune`: a search for good settings of pretraining."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from headwise.cli.pretrain import starting_config
from headwise.cli.terminal import say
from headwise.cli.words import Given
from headwise.errors import UserError
from headwise.study.tune import start, tune
from headwise.study.tuned import TUNING_FILE, tuned_text, write_tuned


def run_tune(given: Given[Any]) -> None:
    """Begin a search or go on with it, and say what was found."""
    out, command = given.need("out"), given.command()
    if command.names:
        raise UserError(f"study tune takes no NAME; got {' '.join(command.names)}; leave it out")
    if len(command.data) != 1:
        raise UserError(
            "study tune takes one --data, the images to pretrain on; got "
            f"{' '.join(command.data) or 'none'}"
        )
    base, words = start(starting_config(given, "small"), command.data[0], command.settings)
    first = ["--config", str(command.config)] if command.config else ["--recipe", command.recipe]
    tune(
        replace(base, seed=given.values.get("seed", base.seed)),
        out,
        search=command.search,
        trials=command.trials,
        criterion=command.criterion,
        words=[*first, *words],
        workers=command.workers,
        threads=command.threads,
        cells=command.cells_in,
        quiet=command.quiet,
    )
    say_tuned(out)


def say_tuned(folder: Path) -> None:
    """What a search has found so far."""
    write_tuned(folder)
    say(tuned_text(folder), f"Trials: {folder / TUNING_FILE}")
