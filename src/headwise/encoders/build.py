"""Encoders: any timm model by name, with a stem for small images, and small ResNets for trials."""

import contextlib
import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
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

# A ResNet of four basic blocks, for trials on a CPU: timm's resnet18 with these settings.
SMALL_RESNET = "resnet-small"
_SMALL_DEPTHS, _SMALL_WIDTHS = (1, 1, 1, 1), (32, 64, 128, 256)

# timm lists these modules among a model's stages, although they come before the stages.
_STEMS = ("act1", "bn1", "stem")


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

    def __post_init__(self) -> None:
        check_fields(self)
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
    stem, tiny = config.stem, config.name == SMALL_RESNET
    if stem == "auto":
        stem = "small" if size <= SMALL_PX and _is_resnet(config.name) else "standard"
    return ResolvedEncoder(
        name=config.name,
        stem=stem,
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
    if (config.depths or config.widths or config.stem.startswith("small")) and not _is_resnet(name):
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


def representation_size(model: nn.Module, config: EncoderConfig, size: int) -> int:
    """Return `p`, the size of `h`, by encoding one black image of `size` px."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            h = model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    except (RuntimeError, AssertionError) as error:
        raise _size_error(config, size, error) from error
    finally:
        model.train(training)
    return h.shape[1]


@functools.lru_cache
def measure_encoder(config: ResolvedEncoder, size: int, *, unfolded: bool) -> tuple[int, bool]:
    """`p`, and whether the bfloat16 gradients of the encoder are reliable on a CPU, with
    convolutions replaced if `unfolded`."""
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


def stage_names(encoder: nn.Module) -> tuple[str, ...]:
    """Return the taps in the encoder, `f1`, `f2`, … after each stage that timm lists (after each
    block, if the model has no stages). Empty if timm lists none."""
    return tuple(_stages(encoder))


@contextlib.contextmanager
def watched_stages(
    encoder: nn.Module, taps: Collection[str]
) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
    """Within the block, a forward pass writes the output of each stage in `taps`, as the mean over
    positions or tokens in float32, to the yielded dictionary. Hooks only read the outputs, so the
    encoder's result is bit-identical."""
    values: dict[str, Tensor] = {}
    with contextlib.ExitStack() as hooks:
        for tap, (module, channels) in _stages(encoder).items():
            if tap in taps:

                def keep(
                    _: nn.Module, __: Any, out: Any, tap: str = tap, c: int = channels
                ) -> None:
                    values[tap] = _mean_over_positions(encoder, tap, out, c)

                hooks.callback(encoder.get_submodule(module).register_forward_hook(keep).remove)
        yield values


def _stages(encoder: nn.Module) -> dict[str, tuple[str, int]]:
    """Return the module name and the number of channels of each stage, by tap."""
    listed: Any = getattr(encoder, "feature_info", [])  # some timm models have none
    modules = dict(encoder.named_modules())
    if any(stage["module"] not in modules for stage in listed):  # some names are not modules
        return {}
    stages = [stage for stage in listed if stage["module"].split(".")[0] not in _STEMS]
    return {f"f{i}": (stage["module"], stage["num_chs"]) for i, stage in enumerate(stages, 1)}


def _mean_over_positions(
    encoder: nn.Module, tap: str, output: Any, channels: int
) -> Float[Tensor, "n c"]:
    shape = tuple(output.shape) if isinstance(output, Tensor) else ()
    # Tokens have their channels last. timm marks models whose maps do with `output_fmt`.
    channels_last = len(shape) == 3 or getattr(encoder, "output_fmt", "NCHW") == "NHWC"
    axis = len(shape) - 1 if channels_last else 1
    if len(shape) not in (3, 4) or shape[axis] != channels:
        raise UserError(
            f"--taps {tap} needs a stage whose output is a map of {channels} channels or tokens of "
            f"that size; got {shape or type(output).__name__}; leave this tap out"
        )
    positions = [dim for dim in range(1, len(shape)) if dim != axis]
    return output.mean(positions, dtype=torch.float32)


def _is_resnet(name: str) -> bool:
    """Return whether timm builds this model with its ResNet class and the plain stem."""
    if name == SMALL_RESNET:
        return True
    import timm
    from timm.models.resnet import ResNet

    if not timm.is_model(name) or timm.model_entrypoint(name).__module__ != ResNet.__module__:
        return False
    with torch.device("meta"):
        return isinstance(timm.create_model(name).conv1, nn.Conv2d)


def _size_error(config: EncoderConfig, size: int, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"encoder {config.name!r} cannot take images of {size} px ({reason}); "
        "give another --encoder or --augment.size"
    )
