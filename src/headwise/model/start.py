"""The weights that a run starts from (`--encoder.weights`).

They are opened where a run begins: what they decide of the settings is decided, and config.json
gets their SHA-256 behind their source, `run:runs/a@sha256:…`. The run keeps the encoder that it
starts with, so that it can be resumed and measured when the source is gone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from headwise.augment import AugmentConfig
from headwise.augment.policies import IMAGENET_MEAN, IMAGENET_STD
from headwise.encoders.build import (
    SMALL_RESNET,
    EncoderConfig,
    ResolvedEncoder,
    is_resnet,
)
from headwise.encoders.weights import fitted, read_tensors, say_once
from headwise.errors import UserError
from headwise.model import elsewhere, export

NEW, _PIN = "none", "@sha256:"
_FIRST = re.compile(r"(?<!layer\d\.\d\.)(?<!layer\d\.\d\d\.)\bconv1\.weight$")
"""The first convolution of a ResNet, not those of its blocks."""


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Weights, and what they say of the encoder that they are of."""

    source: str
    tensors: Mapping[str, Tensor]
    encoder: EncoderConfig
    """The encoder with its stem, depths and widths, where they are known."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def settings(
        self, encoder: EncoderConfig, augment: AugmentConfig
    ) -> tuple[EncoderConfig, AugmentConfig]:
        """The settings that were left open, as these weights have them. Raises `UserError` where
        one that was given is another."""
        own = self.encoder
        _refuse_other(self.source, "--encoder", _of_timm(encoder.name), _of_timm(own.name))
        stems = (encoder.stem, own.stem)
        if "auto" not in stems and "standard" in stems:
            _refuse_other(self.source, "--encoder.stem", *stems)
        if encoder.stem == "auto" and is_resnet(encoder.name):
            say_once(f"encoder.stem is {own.stem}, as in {self.source}")
        given = {n: v for n, v in vars(encoder).items() if v is not None and v != "auto"}
        decided = {n: vars(own)[n] for n in ("stem", "depths", "widths") if n not in given}
        if None in (augment.mean, augment.std):
            say_once(f"images are normalised as for {self.source}")
        return (
            replace(encoder, **decided),
            replace(augment, mean=augment.mean or self.mean, std=augment.std or self.std),
        )


def is_open(weights: str) -> bool:
    """Whether there are weights whose SHA-256 is not known yet."""
    return weights != NEW and _PIN not in weights


def identity(weights: str) -> str:
    """What weights are known by, wherever they lie."""
    return weights.partition(_PIN)[2]


def open_weights(encoder: EncoderConfig) -> StartWeights:
    """Open a source. Raises `UserError` where it is none, and as `elsewhere.open_encoder`."""
    source = encoder.weights.partition(_PIN)[0]
    kind, colon, rest = source.partition(":")
    match kind, bool(colon):
        case "run", True:
            return _of_ours(source, export.encoder_file(rest))
        case "local-dir" | "hf-hub", True:
            return _of_model(source, elsewhere.from_hub(source))
        case "timm", False:
            if encoder.name == SMALL_RESNET:
                raise UserError(
                    f"timm has no weights of {SMALL_RESNET}; leave --encoder.weights out"
                )
            model = elsewhere.from_timm(encoder.name, "--encoder", "--encoder.weights none")
            return _of_model(source, model)
    file = Path(source)
    if not file.is_file():
        raise UserError(
            "encoder.weights must be none, timm, a file (.safetensors, .pth), run:RUN, "
            f"local-dir:FOLDER or hf-hub:NAME; got {source!r}"
        )
    if elsewhere.is_ours(file):
        return _of_ours(source, file)
    return _described(source, read_tensors(file), EncoderConfig(name=encoder.name))


def pinned(weights: StartWeights, encoder: ResolvedEncoder, size: int) -> ResolvedEncoder:
    """The config with the SHA-256 of the weights, as the encoder has them."""
    tensors = fitted(encoder, size, weights.tensors, weights.source)
    return replace(encoder, weights=f"{weights.source}{_PIN}{export.digest({}, tensors)}")


def loaded(encoder: ResolvedEncoder, size: int, kept: Path | None) -> Mapping[str, Tensor] | None:
    """The weights that a run starts from: those that it has `kept`, if it has; else from their
    source. None where new ones are drawn. Raises `UserError` if they are not those of the
    settings."""
    if encoder.weights == NEW:
        return None
    source, _, expected = encoder.weights.partition(_PIN)
    if kept is not None and kept.is_file():
        source, tensors = str(kept), export.load_encoder(kept).state_dict()
    else:
        tensors = fitted(encoder, size, open_weights(encoder).tensors, source)
    if export.digest({}, tensors) != expected:
        raise UserError(
            f"{source} must hold the weights that the run started from, of SHA-256 "
            f"{expected[:12]}…; they have changed; put them back, or begin another run"
        )
    return tensors


def _of_ours(source: str, file: Path) -> StartWeights:
    """The encoder of a run, or its file."""
    made, model = export.describe_encoder(file), export.load_encoder(file)
    arguments = made.get("timm")
    assert arguments is not None, "an own encoder does not open without its code"
    depths, widths = arguments.get("layers"), arguments.get("channels")
    known = EncoderConfig(
        name=arguments["model_name"],
        stem=made["stem"],
        depths=None if depths is None else tuple(depths),
        widths=None if widths is None else tuple(widths),
    )
    return _described(source, model.state_dict(), known, model)


def _of_model(source: str, model: Any) -> StartWeights:
    known = EncoderConfig(name=str(model.pretrained_cfg["architecture"]))
    return _described(source, model.state_dict(), known, model)


def _described(
    source: str, tensors: Mapping[str, Tensor], known: EncoderConfig, model: Any = None
) -> StartWeights:
    """With the stem that the tensors show, and the normalisation of `model`, or if there is none,
    of timm's own weights."""
    import timm

    if known.stem == "auto" and is_resnet(known.name):
        kernels = (t.shape[-1] for name, t in tensors.items() if _FIRST.search(name))
        known = replace(known, stem="standard" if next(kernels, 7) == 7 else "small")
    if model is None:
        cfg = timm.get_pretrained_cfg(_of_timm(known.name), allow_unregistered=True)
        about = {} if cfg is None else cfg.to_dict()
    else:
        about = model.pretrained_cfg
    return StartWeights(
        source=source,
        tensors=tensors,
        encoder=known,
        mean=tuple(about.get("mean", IMAGENET_MEAN)),
        std=tuple(about.get("std", IMAGENET_STD)),
    )


def _of_timm(name: str) -> str:
    """The model of timm that an encoder is made of, without the tag of its weights."""
    return "resnet18" if name == SMALL_RESNET else name.partition(".")[0]


def _refuse_other(source: str, flag: str, given: str, theirs: str) -> None:
    if given != theirs:
        raise UserError(
            f"{flag} must be that of encoder.weights {source}, {theirs}; got {given}; "
            f"give {flag} {theirs}"
        )
