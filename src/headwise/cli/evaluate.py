"""`headwise evaluate`: measure a finished run."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from headwise.cli.flags import Role, Without
from headwise.cli.images import own_images
from headwise.cli.own_flags import OwnFlags, with_code
from headwise.cli.terminal import say
from headwise.cli.words import CommandLine, Given
from headwise.data import DataConfig
from headwise.errors import UserError
from headwise.evaluation.config import PROTOCOLS, EvaluateConfig, protocol
from headwise.runs.results import Result
from headwise.runtime.hardware import Precision


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a finished run. The results are added to its results.json and to its report.html.
    With --encoder or --features, measure an encoder or features from anywhere, into --out."""

    run: Annotated[Path | None, Role.POSITIONAL] = None
    """The run directory; none with --encoder or --features."""
    encoder: str | None = None
    """Without RUN: measure this encoder on --data. It is timm:NAME, a run's encoder.safetensors, a
    file of weights (.safetensors, .pth; see --architecture), a folder of the hub (config.json and
    model.safetensors), or hf-hub:NAME. With RUN: the own encoder that the run was made with, as
    FILE:function (docs/own.md)."""
    features: Path | None = None
    """Measure this table of features, not a run: a .parquet or an .npz with vectors, labels and
    split (docs/run-directory.md)."""
    out: Path | None = None
    """The directory for the results of --encoder or --features: a new one, or one with results of
    the same."""
    architecture: str | None = None
    """The timm model whose weights the file at --encoder holds. None: the file says."""
    pretrained: bool = True
    """Load the weights of --encoder timm:NAME, from timm's cache or the network. Without them it
    has new weights, made from --seed."""
    size: int | None = None
    """Resize images to so many pixels for --encoder. None: the size that its weights were trained
    with."""
    precision: Precision = "auto"
    """The precision of --encoder. auto: bfloat16 autocast if the hardware is fast at it, otherwise
    float32."""
    data: DataConfig | None = None
    accept_changed_data: bool = False
    """Go on if the images of pretraining have changed since."""
    evaluate: Annotated[EvaluateConfig, Role.UNPREFIXED] = field(default_factory=EvaluateConfig)
    own: Annotated[OwnFlags, Role.UNPREFIXED, Without(("encoder",), "it stands beside RUN")] = (
        field(default_factory=OwnFlags)
    )
    threads: int | None = None
    """Threads of torch on the CPU; the last digits of results depend on it. None: OMP_NUM_THREADS,
    or else one for each usable core."""


def run(given: Given[Evaluate]) -> None:
    from headwise.evaluation.elsewhere import measure_encoder, measure_features
    from headwise.evaluation.evaluate import measure
    from headwise.model.elsewhere import EncoderChoice
    from headwise.report import evaluation_text, write_run_report

    what = _what(given)
    own = own_images(given, given.values["run"]) if what == "run" else None
    command = given.command({"data": own})
    config, out = command.evaluate, command.out or command.run
    assert out is not None, "one of them was given"
    refuse_idle(given, config)
    if what != "run" and "protocols" not in given.values:
        config = replace(config, protocols=("all",))
    if command.features is not None:
        measured = measure_features(command.features, out, config)
    elif what == "encoder":
        assert command.encoder is not None, "it was given"
        choice = EncoderChoice(
            architecture=command.architecture, pretrained=command.pretrained, size=command.size
        )
        data, precision = command.data or DataConfig(), command.precision
        measured = measure_encoder(
            command.encoder, data, out, config, choice=choice, precision=precision
        )
    else:
        accept = command.accept_changed_data
        opened = with_code(out, replace(command.own, encoder=command.encoder))
        measured = measure(opened, command.data, config, accept_changed_data=accept)
    say(evaluation_text(out, measured), "", _HEADING)
    say(*(_line(name, result) for name, result in measured.results.items()))
    say("", f"Report: {write_run_report(out)}")


_NAMES = {"run": "RUN", "encoder": "--encoder", "features": "--features"}
_OF_ENCODER = ("architecture", "pretrained", "size", "precision")
_OWN = ("head", "augment", "allow_code")
_IDLE = {
    "run": ("out", *_OF_ENCODER),
    "encoder": ("accept_changed_data", *_OWN),
    "features": ("accept_changed_data", "data", "device", "baselines", *_OF_ENCODER, *_OWN),
}
"""The settings that have no effect on what is measured."""


def _what(given: Given[Evaluate]) -> str:
    """What is measured: run, encoder or features. Raises `UserError` unless it is one of them, with
    flags that have an effect on it."""
    what, *more = [name for name in _NAMES if given.values.get(name) is not None] or ["run"]
    if more and (what, more) != ("run", ["encoder"]):  # an own encoder, as FILE:function
        raise UserError(
            f"evaluate measures one of RUN, --encoder and --features; got {_NAMES[what]} and "
            f"{_NAMES[more[0]]}; leave one out"
        )
    given.need(what)
    for flag in given.line.flags:
        if flag.path in given.values and {flag.path, flag.group} & {*_IDLE[what]}:
            raise UserError(f"{flag.name} has no effect with {_NAMES[what]}; leave it out")
    if what != "run":
        given.need("out")
    if what == "encoder":
        given.need("data.spec")
    return what


def refuse_idle(given: Given[Evaluate], config: EvaluateConfig) -> None:
    """Raise `UserError` where a flag was given for a protocol that is not asked for."""
    for name in PROTOCOLS:
        flags = given.under(name)
        if flags and not {name, "all"} & set(config.protocols):
            raise UserError(
                f"{flags[0]} has an effect only with the protocol {name}; "
                f"got --protocols {' '.join(config.protocols)}; add it, or leave {flags[0]} out"
            )
    asked = [protocol(name, config) for name in PROTOCOLS if {name, "all"} & set(config.protocols)]
    reads_taps = any(one.on_features for one in asked)
    idle = {
        "taps": (not reads_taps, "that reads taps, such as linear"),
        "baselines": (not reads_taps, "that reads taps, such as linear"),
        "seeds": (not any(one.description.draws for one in asked), "that draws, such as linear"),
    }
    for path, (unused, which) in idle.items():
        if unused and path in given.values:
            raise UserError(
                f"--{path} has an effect only with a protocol {which}; "
                f"got --protocols {' '.join(config.protocols)}; leave it out"
            )


_HEADING = f"{'':32} {'value':>9}  [95 % interval over test images]"


def _line(name: str, result: Result) -> str:
    """Value, 95 % interval, standard deviation over seeds, and how many stand behind them."""
    words = [f"{name:32} {result.value:9.4f}"]
    if result.interval is not None:
        low, high = result.interval
        words.append(f"[{low:.4f}, {high:.4f}]")
    if result.std is not None:
        words.append(f"σ {result.std:.4f} over {len(result.seeds)} seeds")
    return "  ".join([*words, f"n = {result.n}"])


LINE = CommandLine(
    kind=Evaluate,
    example="headwise evaluate runs/photos --data ./labelled --protocols knn linear --taps h z",
    usual=(
        "data.spec protocols taps seeds baselines against data.limit transfer.targets seed device "
        "threads"
    ),
    run=run,
)
