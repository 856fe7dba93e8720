"""`headwise pretrain`: an encoder from images, or a stopped run continued."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from headwise.augment import PROBABILITIES, SIMCLR, AugmentConfig, Operator
from headwise.cli.flags import Role
from headwise.cli.own_flags import handed_in
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.encoders.build import EncoderConfig, is_resnet
from headwise.errors import UserError
from headwise.heads import HeadConfig, for_head
from headwise.model.config import OF_OBJECTIVES, PretrainConfig
from headwise.model.config_file import read_config
from headwise.model.objective import settings_of, with_setting
from headwise.model.own_parts import entrusted
from headwise.own_code import Handed, OwnCode
from headwise.pretraining.recipes import recipe
from headwise.runs.directory import Run


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain an encoder on images, continue a run that stopped, or extend a finished one."""

    out: Path | None = None
    """The run directory to create; required unless --resume is given."""
    resume: Path | None = None
    """A run directory to continue from its last checkpoint, with the settings that it has; no other
    flags can be given with it but --threads, --quiet, if its images are elsewhere now --data, and
    the own code that it was made with (docs/own.md)."""
    extend: Path | None = None
    """A finished run to continue in a new one (--out): with its settings, weights, optimizer state
    and images, to a larger number of --epochs, which counts those that it has done. The learning
    rate starts again: warm-up from 0, then a cosine to 0 at the end."""
    recipe: str = "default"
    """The named settings to start from: default, small, demo, cifar10, speedrun-cifar10, imagenet,
    deepfusion, deepfusion-first, deepfusion-later or transfusion (docs/commands.md)."""
    config: Path | None = None
    """A run's config.json to start from, in place of a recipe."""
    allow_code: bool = False
    """Execute the copies of own code that the run of --resume, --extend or --config holds. Only for
    runs that you trust."""
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""
    quiet: bool = False
    """Show no progress."""
    pretrain: Annotated[PretrainConfig, Role.UNPREFIXED] = field(default_factory=PretrainConfig)


def run(given: Given[Pretrain]) -> None:
    from headwise.pretraining.loop import pretrain, resume

    if given.values.get("resume") is not None:
        refuse_beside_resume(given)
        command = given.command({})
        data = given.values.get("data.spec")
        stopped = Run.open(given.need("resume"), finished=False, handed=handed_in(given.values))
        done = resume(stopped, data=data, quiet=command.quiet)
    else:
        out = given.need("out")
        command = given.command()
        refuse_idle(given, command.pretrain)
        done = pretrain(command.pretrain, out, extends=command.extend, quiet=command.quiet)
    from headwise.report.reading.training import too_short

    finished = f"{done.path} is finished; its encoder is {done.path / 'encoder.safetensors'}"
    say(*filter(None, [finished, too_short(done.metrics())]))


def starting_config(given: Given[Any], default: str) -> PretrainConfig:
    """The config that the flags then change: a file's or a recipe's."""
    file, name = given.values.get("config"), given.values.get("recipe")
    extended = given.values.get("extend")
    if extended is not None:
        if file is not None or name is not None:
            raise UserError(
                "--extend starts from the settings of its run; leave --config and --recipe out"
            )
        config = _recorded(given, Run.open(extended).path / "config.json")
        return replace(config, optim=replace(config.optim, warmup_epochs=None))
    if file is None:
        return _of_chosen(given, recipe(name or default))
    if name is not None:
        raise UserError("--config and --recipe both say what to start from; leave one out")
    if not file.is_file():
        raise UserError(f"--config must be a file; {file} does not exist")
    return _of_chosen(given, _recorded(given, file))


def _recorded(given: Given[Any], file: Path) -> PretrainConfig:
    """The settings of a run, with the copies of its own code if they are allowed."""
    allowed = Handed(allow_code=bool(given.values.get("allow_code")))
    return entrusted(read_config(PretrainConfig, file), allowed, file.parent)


def _of_chosen(given: Given[Any], config: PretrainConfig) -> PretrainConfig:
    """The settings to start from without those of a head, an encoder or an objective that another
    one replaces."""
    head, encoder = given.values.get("head.name"), given.values.get("encoder.name")
    own = given.values.get("objective.own")
    if given.values.get("objective", own or config.objective) != config.objective:
        config = replace(config, **{name: vars(PretrainConfig)[name] for name in OF_OBJECTIVES})
    if head is not None:
        config = replace(config, head=for_head(config.head, head))
    if encoder is not None and encoder != config.encoder.name:
        stem = config.encoder.stem if is_resnet(encoder) else "auto"
        config = replace(config, encoder=EncoderConfig(name=encoder, stem=stem))
    code: OwnCode | None = given.values.get("head.own")
    if code is not None and code.continued(config.head.own) is code:
        config = replace(config, head=HeadConfig())
    code = given.values.get("encoder.own")
    if code is not None and code.continued(config.encoder.own) is code:
        config = replace(config, encoder=EncoderConfig())
    return config


def refuse_beside_resume(given: Given[Any]) -> None:
    """Raise `UserError` where a flag was given that a stopped run cannot take. A comparison, which
    alone has arms and seeds, may grow."""
    taken = ("resume", "threads", "quiet", "data.spec", "allow_code", "heads", "arms", "seeds")
    taken += ("head.own", "encoder.own", "objective.own", "augment.own")
    others = [path for path in given.values if path not in taken]
    if others:
        name = next(flag.name for flag in given.line.flags if flag.path == others[0])
        raise UserError(
            f"--resume continues with the settings that the run has; got {name}; leave it out"
        )


def refuse_idle(given: Given[Any], config: PretrainConfig) -> None:
    """Raise `UserError` where a flag was given that these settings make no use of."""
    optimizer = config.optim.name
    idle = {
        "optim.momentum": (optimizer == "adamw", "--optim.name sgd or lars"),
        "optim.betas": (optimizer != "adamw", "--optim.name adamw"),
        "optim.lars_trust": (optimizer != "lars", "--optim.name lars"),
        "optim.lars_variant": (optimizer != "lars", "--optim.name lars"),
        **{
            name: (name not in settings_of(config.objective), with_setting(name))
            for name in ("temperature", "loss", *OF_OBJECTIVES)
        },
        "class_directions.weight": (
            config.class_directions.fraction == 0,
            "--class-directions.fraction above 0",
        ),
    }
    for flag in given.line.flags:
        unused, needs = idle.get(flag.path, (False, ""))
        if unused and flag.path in given.values:
            raise UserError(f"{flag.name} has an effect only with {needs}; leave it out")
    _refuse_anothers_rate(given, optimizer)
    _refuse_idle_operators(given, config.augment)


_OPERATOR_OF: dict[str, Operator] = {
    "crop_scale": "crop",
    "strength": "colour",
    "colour": "colour",
    "blur_sigma": "blur",
    "cutout_side": "cutout",
    "noise_sigma": "noise",
    **{setting: op for op, setting in PROBABILITIES.items()},
}


def _refuse_idle_operators(given: Given[Any], config: AugmentConfig) -> None:
    """Raise `UserError` for a setting whose operator no view has, and for an operator that was
    named although its probability is 0."""
    used = {*(config.ops or SIMCLR), *(config.ops_second or ())}
    for setting, op in _OPERATOR_OF.items():
        if f"augment.{setting}" in given.values and op not in used:
            raise UserError(
                f"augment.{setting} has an effect only with {op} among --augment.ops; leave it out"
            )
    named = {*(given.values.get("augment.ops") or ())}
    named |= {*(given.values.get("augment.ops_second") or ())}
    for op, setting in PROBABILITIES.items():
        if op in named and vars(config)[setting] == 0:
            raise UserError(
                f"augment.{setting} must be above 0 with {op} among --augment.ops; got 0; "
                f"give another value, or leave {op} out"
            )


def _refuse_anothers_rate(given: Given[Any], optimizer: str) -> None:
    """Raise `UserError` where another optimizer was named beside the learning rate of a recipe or a
    file."""
    start = given.line.bases(given)["pretrain"]
    assert isinstance(start, PretrainConfig), "what the flags change"
    rates = {"optim.lr": start.optim.lr, "optim.lr_scaling": start.optim.lr_scaling}
    left = {
        path: value
        for path, value in rates.items()
        if value not in (None, "none") and path not in given.values
    }
    if left and optimizer != start.optim.name:
        names = " and ".join(f.name for f in given.line.flags if f.path in left)
        raise UserError(
            f"--optim.name {optimizer} needs {names}: {', '.join(map(str, left.values()))} is for "
            f"{start.optim.name}, with which the settings start"
        )


LINE = CommandLine(
    kind=Pretrain,
    example="headwise pretrain --data ./photos --encoder resnet50 --out runs/photos",
    usual=(
        "data.spec out recipe encoder.name head.name epochs batch_size optim.lr temperature "
        "data.limit seed device resume quiet"
    ),
    run=run,
    bases=lambda given: {"pretrain": starting_config(given, "default")},
)
