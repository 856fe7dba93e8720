"""The own code of a config: which parts it has, and how a run's parts get their code again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from headwise.encoders.build import EncoderConfig, registered_by
from headwise.errors import UserError
from headwise.files import write_bytes
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig, ResolvedConfig
from headwise.model.config_file import read_config
from headwise.model.own_files import copy_of, trusted
from headwise.own_code import Handed, Own, OwnCode, Part, own
from headwise.runs.directory import Run

Config = TypeVar("Config", bound=PretrainConfig)


def own_parts(config: PretrainConfig) -> dict[Part, OwnCode]:
    """The parts of a config that are own code."""
    every: dict[Part, OwnCode | None] = {
        "head": config.head.own,
        "encoder": config.encoder.own,
        "objective": config.own_objective,
        "augment": config.augment.own,
    }
    return {part: code for part, code in every.items() if code is not None}


def with_parts(config: Config, parts: Mapping[Part, OwnCode]) -> Config:
    """The config with these parts."""
    config = replace(config, own_objective=parts.get("objective", config.own_objective))
    for part in ("head", "encoder", "augment"):
        if part in parts:
            settings = replace(vars(config)[part], own=parts[part])
            config = replace(config, **{part: settings})
    return config


def with_own(
    config: PretrainConfig,
    *,
    head: Own | None = None,
    encoder: Own | None = None,
    loss: Own | None = None,
    augment: Own | None = None,
) -> PretrainConfig:
    """The config with the functions and modules that `pretrain` was given in place of its own.
    Raises `UserError` if the code of a part is still missing."""
    if head is not None:
        config = replace(config, head=HeadConfig(own=own(head)))
    if encoder is not None:
        config = replace(config, encoder=EncoderConfig(own=own(encoder)))
    if loss is not None:
        config = replace(config, own_objective=own(loss))
    if augment is not None:
        config = replace(config, augment=replace(config.augment, own=own(augment)))
    return complete(config)


def complete(config: Config) -> Config:
    """The config, which is trained. Raises `UserError` for a part whose code is not there."""
    for part, code in own_parts(config).items():
        if code.code is None:
            raise UserError(code.wanted(part))
    return config


def entrusted(config: Config, handed: Handed, folder: Path) -> Config:
    """The config of the run in `folder`, whose parts have the code that was handed over, or that of
    the run's copies if they are allowed. Others stay without, and fail where they are used.

    Raises `UserError` for code that is not what the run was made with.
    """
    parts = own_parts(config)
    return with_parts(config, {part: trusted(parts[part], part, handed, folder) for part in parts})


def keep_code(config: PretrainConfig, folder: Path) -> None:
    """Write the copy of every file with own code."""
    for part, code in own_parts(config).items():
        if code.source is not None:
            write_bytes(copy_of(folder, part), code.source)


def handed_of(config: PretrainConfig) -> Handed:
    """What a run of this config needs to be opened again in this process."""
    return Handed(
        head=config.head.own,
        encoder=config.encoder.own,
        objective=config.own_objective,
        augment=config.augment.own,
    )


def open_run(
    run: str | Path | Run,
    *,
    head: Own | None = None,
    encoder: Own | None = None,
    loss: Own | None = None,
    augment: Own | None = None,
    allow_code: bool = False,
) -> Run:
    """A run that was made with own code, with that code handed over again (docs/own.md). What this
    returns can be given to every function that takes a run.

    `allow_code`: whether the run's own copies of the files may be executed. Raises `UserError` for
    code that is not what the run was made with, and for parts that are not own code.
    """
    given = {"head": head, "encoder": encoder, "objective": loss, "augment": augment}
    parts = {part: own(code) for part, code in given.items() if code is not None}
    opened = Run.open(run, finished=False, handed=Handed(**parts, allow_code=allow_code))
    config = read_config(ResolvedConfig, opened.path / "config.json")
    for part, code in parts.items():
        registered = part == "encoder" and registered_by(config.encoder.name, code.code)
        if part not in own_parts(config) and not registered:
            raise UserError(
                f"the {part} of {opened.path} is headwise's; got {code.words}; leave it out"
            )
    entrusted(config, opened.handed, opened.path)
    return opened
