"""The data flags of commands that work on a run."""

from pathlib import Path
from typing import Any

from headwise.cli.words import Given
from headwise.data import DataConfig
from headwise.model.trained import load_config
from headwise.runs.directory import Run


def own_images(given: Given[Any], run: Path) -> DataConfig | None:
    """What the data flags change where they name no images: the run's own. None where there is
    nothing to change, and where --data names others."""
    if not given.under("data") or "data.spec" in given.values:
        return None
    return load_config(Run.open(run)).data
