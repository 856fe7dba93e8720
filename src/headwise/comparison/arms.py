"""The arms of a comparison: a head, or a head with other settings (`mlp:head.width=64`)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from headwise import heads
from headwise.config import flat, to_dict, with_texts
from headwise.data import Images
from headwise.errors import UserError, nearest
from headwise.files import safe_name
from headwise.heads import HEADS, HeadName
from headwise.model import optim, start
from headwise.model.config import ONLY_ROUNDING, PretrainConfig, ResolvedConfig, resolve
from headwise.model.config_file import CONFIG_VERSION
from headwise.model.optim import OptimConfig
from headwise.model.trained import load_config
from headwise.runs.directory import Run, arm_folders

SHARED = ("data", "seed", "augment.in_c", *ONLY_ROUNDING)
"""What arms cannot differ in: the images, the protocol, and what changes no result but for
rounding."""
_LONGEST_NAME = 200


def config_of(base: PretrainConfig, arm: str) -> PretrainConfig:
    """The settings of an arm, written `HEAD` or `HEAD:setting=value,setting=value`: those of `base`
    with the head's own, then with those of the arm. Raises `UserError` where it cannot have one."""
    name, _, written = arm.partition(":")
    texts = dict(_setting(arm, one) for one in written.split(",")) if written else {}
    if name not in (*HEADS, "own"):
        raise UserError(f"arm {arm!r} must begin with a head; got {name!r}; {nearest(name, HEADS)}")
    try:
        return with_texts(
            replace(base, head=heads.for_head(base.head, cast(HeadName, name))), texts
        )
    except UserError as error:
        raise UserError(f"arm {arm!r}: {error}") from None


def _setting(arm: str, written: str) -> tuple[str, str]:
    """A setting's path and the text of its value."""
    path, equals, text = written.partition("=")
    path = path.strip().replace("-", "_")
    if not (path and equals and text):
        raise UserError(
            f"arm {arm!r} must be HEAD or HEAD:setting=value,setting=value; got {written!r} for a "
            "setting; for example mlp:head.width=64,temperature=0.2"
        )
    if _shared(path):
        raise UserError(
            f"arm {arm!r}: {path} must be the same for all arms; give it to the comparison, or "
            "leave it out"
        )
    return path, text


def _shared(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in SHARED)


def check_arms(base: PretrainConfig, arms: Sequence[str]) -> None:
    """Raise `UserError` where arms are not settings that differ, each with a directory."""
    if not arms or len({*arms}) < len(arms):
        raise UserError(f"--heads and --arms must name each arm once; got {' '.join(arms)!r}")
    folders: dict[str, str] = {}
    for arm in arms:
        name = safe_name(arm)
        if len(name) > _LONGEST_NAME:
            raise UserError(f"arm {arm!r} is too long for the name of a directory; vary less")
        if (other := folders.setdefault(name.lower(), arm)) != arm:
            raise UserError(f"arms {other!r} and {arm!r} would have one directory; leave one out")
    refuse_same({arm: config_of(base, arm) for arm in arms})


def refuse_same(configs: Mapping[str, PretrainConfig]) -> None:
    """Raise `UserError` where two arms have the same settings."""
    for one, other in itertools.combinations(configs, 2):
        if configs[one] == configs[other]:
            raise UserError(f"arms must differ; {one!r} and {other!r} do not; leave one out")


def refuse_changed_run(out: Path, name: str, asked: PretrainConfig, train: Images) -> None:
    """Raise `UserError` where a run of an arm, in `out/NAME-seedN`, has other settings than its
    comparison, and name the setting. What an older version or another machine decided is its own.
    """
    expected: ResolvedConfig | None = None
    said = flat(to_dict(asked))
    for arm, seed, folder in arm_folders(out):
        run, path = Run(folder), folder / "config.json"
        if arm != name or not path.is_file():
            continue
        expected = expected or resolve(replace(asked, device="auto"), train)
        should = {**own_settings(expected), "seed": seed}
        config = load_config(run)
        of_today = run.config.get("version") == CONFIG_VERSION
        own = {**own_settings(config), "seed": config.seed}
        for setting in {**own, **should}:
            value = own.get(setting)
            left_open = said.get(setting) in (None, "auto")
            if left_open and not of_today:
                continue
            if setting == "precision" and (left_open or config.device != expected.device):
                continue
            if value != should.get(setting):
                raise UserError(
                    f"the runs of {out} must have its settings; {setting} is {value!r} in {path} "
                    f"and should be {should.get(setting)!r}; put the config.json back that was "
                    "changed, or remove the run to train it again"
                )


def own_settings(config: ResolvedConfig) -> dict[str, Any]:
    """The settings by which arms are told apart, by path. What follows from another one is open:
    warm-up that the number of epochs decides."""
    settings = flat(to_dict(config))
    usual = OptimConfig(name=config.optim.name)
    warmup = optim.resolve(usual, config.epochs - config.optim.begin_epoch).warmup_epochs
    if settings["optim.warmup_epochs"] == warmup:
        settings["optim.warmup_epochs"] = None
    # Start weights are known by their SHA-256, and own code by its source, wherever they lie.
    weights = start.identity(settings.pop("encoder.weights"))
    settings |= {"encoder.weights": weights} if weights else {}
    if not settings["exclude_group"]:  # runs of before have no such setting, and their names stay
        del settings["exclude_group"]
    away = (".own.file", "own_objective.file")
    return {p: v for p, v in settings.items() if not _shared(p) and not p.endswith(away)}


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths at which these settings are not the same, without those of the head where heads
    differ: each has its own."""
    every = list(settings)
    paths = [
        path
        for path in dict.fromkeys(path for one in every for path in one)
        if any(one.get(path) != every[0].get(path) for one in every)
    ]
    own = "head.name" in paths
    return [p for p in paths if p == "head.name" or not (own and p.startswith("head."))]


def names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each of these arms, which differ: its head, and the settings that tell it from the
    others."""
    apart = [path for path in differing(settings) if path != "head.name"]
    found = []
    for own in settings:
        same_head = [one for one in settings if one["head.name"] == own["head.name"]]
        paths = dict.fromkeys([*differing(same_head), *apart])
        told = ",".join(f"{path}={text_of(own[path])}" for path in paths if path in own)
        found.append(f"{own['head.name']}:{told}" if told else own["head.name"])
    return found


def text_of(value: Any) -> str:
    """A value as `config_of` reads it."""
    if isinstance(value, list):
        return " ".join(map(text_of, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
