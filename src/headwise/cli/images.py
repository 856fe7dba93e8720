"""The data flags of commands that work on a run."""

from pathlib import Path
from typing import Any

from headwise.cli.words import Given
from headwise.data import DataConfig
from headwise.model.trained import data_of
from headwise.runs.directory import Run


def own_images(given: Given[Any], run: Path) -> DataConfig | None:
    """What the data flags change: the settings of the run's own images, if they name no others.
    None where there is nothing to change."""
    return data_of(Run.open(run), given.values.get("data.spec")) if given.under("data") else None
