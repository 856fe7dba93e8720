"""A run of these settings, pretrained to its end, however far it is."""

from pathlib import Path

from headwise.data import Splits
from headwise.files import write_json
from headwise.model.config import PretrainConfig, resolve
from headwise.model.config_file import config_json
from headwise.model.own_parts import handed_of
from headwise.pretraining.loop import pretrain, resume
from headwise.runs.directory import Run


def finished(
    config: PretrainConfig, path: Path, images: Splits, quiet: bool, until: int | None = None
) -> Run:
    """The run at `path`, begun or resumed where it is not finished, or where it has not come to the
    end of epoch `until`. Errors as in `pretrain`."""
    if path.exists() and any(path.glob("[!.]*")):
        if not (path / "config.json").exists():  # killed before it had one
            write_json(path / "config.json", config_json(resolve(config, images.train)))
        return resume(Run(path, handed_of(config)), images, until=until, quiet=quiet)
    return pretrain(config, path, images, until=until, quiet=quiet)
