"""Encoders: any timm model by name, with a stem for small images, and small ResNets for trials."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headwise import rng
from headwise.augment import SMALL_PX
from headwise.config import check_fields
from headwise.encoders.convolution import (
    Conv2d,
    replace_convolutions,
    replace_narrow_convolutions,
)
from headwise.errors import UserError, nearest
from headwise.own_code import OwnCode

# A ResNet of four basic blocks, for trials on a CPU: timm's resnet18 with these settings.
SMALL_RESNET = "resnet-small"
_SMALL_DEPTHS, _SMALL_WIDTHS = (1, 1, 1, 1), (32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The encoder `f`, from images to representations `h`."""

    name: str = "resnet18"
    """The name of a timm model, or resnet-small: a ResNet of four basic blocks with 32 to 256
    channels."""
    stem: Literal["auto", "standard", "small", "small-strided"] = "auto"
    """The first layers of a ResNet. standard: a 7×7 convolution of stride 2 and max-pooling; small:
    a 3×3 convolution of stride 1; small-strided: a 3×3 convolution of stride 2. auto: small for
    views up to 64 px, otherwise standard."""
    depths: tuple[int, ...] | None = None
    """Number of blocks in each of the four stages of a ResNet. None: the model's own."""
    widths: tuple[int, ...] | None = None
    """Number of channels in each of the four stages of a ResNet; with bottlenecks, those of their
    inner layers. None: the model's own."""
    weights: str = "none"
    """The weights to start from (docs/start-weights.md). none: new ones, drawn from the seed; a
    .safetensors or .pth file; run:RUN: the encoder of another run; local-dir:FOLDER: a folder that
    timm saved; hf-hub:NAME: one on the Hugging Face hub; timm: timm's own for this encoder."""
    own: OwnCode | None = None
    """A function of yours, FILE:FUNCTION, that takes its settings and returns the encoder, from
    images to h (docs/own.md). --encoder takes it too."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.own is not None:
            object.__setattr__(self, "name", "own")
            if (self.stem, self.depths, self.widths) != ("auto", None, None):
                raise UserError(
                    "encoder.stem, encoder.depths and encoder.widths are not for an own encoder; "
                    f"got {self.own.words}; leave them out"
                )
            if self.weights != "none":
                raise UserError(
                    "encoder.weights is not for an own encoder, whose function can load them; "
                    f"got {self.weights}; leave it out"
                )
        _check_stages(self, left_open=None)


@dataclass(frozen=True, kw_only=True)
class ResolvedEncoder(EncoderConfig):
    """An `EncoderConfig` in which nothing is left open; empty depths or widths: the model's own."""

    stem: Literal["standard", "small", "small-strided"]
    depths: tuple[int, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        _check_stages(self, left_open=())


def _check_stages(config: EncoderConfig, left_open: tuple[()] | None) -> None:
    for name, values in (("depths", config.depths), ("widths", config.widths)):
        if values != left_open and (values is None or len(values) != 4 or min(values) < 1):
            given = " ".join(map(str, values or ()))
            raise UserError(f"encoder.{name} must be four positive numbers; got {given!r}")


def resolve(config: EncoderConfig, size: int) -> ResolvedEncoder:
    """The config with nothing left open, for views of `size` px."""
    if config.own is not None:
        return ResolvedEncoder(name="own", own=config.own, stem="standard", depths=(), widths=())
    stem, tiny = config.stem, config.name == SMALL_RESNET
    if stem == "auto":
        stem = "small" if size <= SMALL_PX and is_resnet(config.name) else "standard"
    return ResolvedEncoder(
        name=config.name,
        stem=stem,
        weights=config.weights,
        depths=config.depths or (_SMALL_DEPTHS if tiny else ()),
        widths=config.widths or (_SMALL_WIDTHS if tiny else ()),
    )


def timm_arguments(config: ResolvedEncoder, size: int) -> dict[str, Any]:
    """Return the arguments with which `timm.create_model` makes this encoder, except for the small
    stems, for which timm has no argument (see `small_stem`)."""
    import timm

    name = "resnet18" if config.name == SMALL_RESNET else config.name
    if not timm.is_model(name):
        raise UserError(
            f"--encoder must be a timm model or {SMALL_RESNET}; got {config.name!r}; "
            f"{nearest(config.name, [SMALL_RESNET, *timm.list_models()])}"
        )
    arguments: dict[str, Any] = {"model_name": name, "pretrained": False, "num_classes": 0}
    if config.depths:
        arguments["layers"] = config.depths
    if config.widths:
        arguments["channels"] = config.widths
    if (config.depths or config.widths or config.stem.startswith("small")) and not is_resnet(name):
        raise UserError(
            "encoder.stem small, encoder.depths and encoder.widths are only for ResNets; "
            f"got encoder {config.name!r}; leave them out"
        )
    # Models with position tables (vision transformers) are built for a single image size.
    timm_config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if timm_config and timm_config.fixed_input_size:
        arguments["img_size"] = size
    return arguments


def small_stem(model: nn.Module, stride: int) -> None:
    """Replace the 7×7 stride-2 convolution and the max-pool of a timm ResNet by a 3×3 convolution,
    as SimCLR does for CIFAR (arXiv 2002.05709, B.9)."""
    replaced: Any = model.conv1
    conv = nn.Conv2d(3, replaced.out_channels, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = conv
    model.maxpool = nn.Identity()


def build_encoder(config: EncoderConfig, size: int, seed: int) -> nn.Module:
    """Return a timm model without its classifier, from `[n 3 size size]` to `h` `[n p]`. Its
    weights are a function of `seed`. Raises `UserError` for an unknown name or an unfit size."""
    import timm

    config = resolve(config, size)
    if config.own is not None:
        return _own_encoder(config, config.own, size, seed)
    arguments = timm_arguments(config, size)
    with rng.seeded(seed, "encoder"):
        try:
            model = timm.create_model(**arguments)
        except (TypeError, AssertionError, RuntimeError) as error:
            raise _size_error(config, size, error) from error
        if config.stem == "small":
            small_stem(model, stride=1)
        elif config.stem == "small-strided":
            small_stem(model, stride=2)
    replace_narrow_convolutions(model)
    representation_size(model, config, size)
    return model


def _own_encoder(config: EncoderConfig, code: OwnCode, size: int, seed: int) -> nn.Module:
    """Return the encoder that the user's function makes, or a copy of the user's module."""
    with rng.seeded(seed, "encoder"):
        model = code.built("encoder")
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        raise UserError(
            f"the encoder {code.words} must be a module with parameters (nn.Module); "
            f"got {type(model).__name__}"
        )
    representation_size(model, config, size)
    return model


def registered_by(name: str, code: Callable[..., Any] | None) -> bool:
    """Return whether timm makes the model of this name with this function."""
    import timm

    return timm.is_model(name) and timm.model_entrypoint(name) is code


def representation_size(model: nn.Module, config: EncoderConfig, size: int) -> int:
    """Return `p`, the size of `h`, by encoding one black image of `size` px."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            h = model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    except Exception as error:  # an own encoder raises what it likes
        if config.own is None and not isinstance(error, RuntimeError | AssertionError):
            raise
        raise _size_error(config, size, error) from error
    finally:
        model.train(training)
    if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != 1:
        given = list(h.shape) if isinstance(h, Tensor) else type(h).__name__
        raise UserError(
            f"encoder {_called(config)!r} must give a vector for each image; got {given} for one"
        )
    if not h.isfinite().all():
        raise UserError(
            f"encoder {_called(config)!r} must give finite numbers; got NaN or infinity"
        )
    return h.shape[1]


def measure_encoder(config: ResolvedEncoder, size: int, *, unfolded: bool) -> tuple[int, bool]:
    """`p`, and whether the bfloat16 gradients of the encoder are reliable on a CPU, with
    convolutions replaced if `unfolded`."""
    if config.own is not None:  # equal records may be other modules
        return _measured.__wrapped__(config, size, unfolded=unfolded)
    return _measured(config, size, unfolded=unfolded)


@functools.lru_cache
def _measured(config: ResolvedEncoder, size: int, *, unfolded: bool) -> tuple[int, bool]:
    model = build_encoder(config, size, seed=0)
    if unfolded:
        replace_convolutions(model)
    return representation_size(model, config, size), not strides_over_one_pixel(model, size)


def strides_over_one_pixel(model: nn.Module, size: int) -> bool:
    """Return whether, for images of `size` px, a strided convolution of 3×3 or more gets a single
    pixel. On CPUs torch's bfloat16 weight gradient then holds uninitialised memory (measured with
    torch 2.15, stride 2, any number of channels). `Conv2d` computes its own gradient."""
    affected = []

    def check_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d), "only convolutions have this hook"
        strided = max(layer.stride) > 1 and max(layer.kernel_size) > 1
        affected.append(strided and min(inputs[0].shape[-2:]) == 1)

    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, Conv2d)
    ]
    hooks = [layer.register_forward_pre_hook(check_input) for layer in layers]
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return any(affected)


def is_resnet(name: str) -> bool:
    """Return whether timm builds this model with its ResNet class and the plain stem."""
    if name == SMALL_RESNET:
        return True
    import timm
    from timm.models.resnet import ResNet

    if not timm.is_model(name) or timm.model_entrypoint(name).__module__ != ResNet.__module__:
        return False
    with torch.device("meta"):
        return isinstance(timm.create_model(name).conv1, nn.Conv2d)


def _called(config: EncoderConfig) -> str:
    return config.name if config.own is None else config.own.words


def _size_error(config: EncoderConfig, size: int, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"encoder {_called(config)!r} cannot take images of {size} px ({reason}); "
        "give another --encoder or --augment.size"
    )
