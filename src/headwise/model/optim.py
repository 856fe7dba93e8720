"""What changes the weights, and how fast: parameter groups, LARS, the learning rate of a step.

There is no scheduler object: the loop asks `learning_rate(step)` and writes it into every group,
so resuming needs the step alone.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from headwise.config import check_fields, resolved_as
from headwise.errors import UserError, nearest

LrScaling = Literal["none", "linear", "sqrt"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The defaults are SimCLR's for small batches and few epochs (arXiv 2002.05709, B.1): LARS with
    0.075·√batch_size."""

    name: Literal["sgd", "adamw", "lars"] = "lars"
    """The optimizer. SGD and LARS use --optim.momentum, AdamW uses --optim.betas."""
    lr: float | None = None
    """Base learning rate, before --optim.lr-scaling. None: 0.075 for LARS, 0.001 for AdamW, 0.03
    for SGD."""
    lr_scaling: LrScaling | None = None
    """How the batch size changes the peak learning rate. none: not at all; linear: times
    batch_size/256; sqrt: times √batch_size. None: sqrt for LARS, none for the others."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    nesterov: bool = False
    """Use Nesterov momentum. SGD only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two running means. AdamW only."""
    weight_decay: float | None = None
    """Weight decay, applied to weights but not to biases, normalisation layers, class tokens and
    position tables. None: 1e-6 for LARS, as in SimCLR's paper, and 1e-4 for the others."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up from 0, before the cosine decay to 0. None: 10 as in SimCLR, but at
    most a tenth of the run."""
    lars_trust: float = 0.001
    """Trust coefficient of LARS; the default is SimCLR's. LARS only."""
    lars_variant: Literal["reference", "denominator"] = "reference"
    """The form of LARS. reference: SimCLR's code; denominator: timm and lightly. LARS only."""

    def __post_init__(self) -> None:
        check_fields(self)
        _require(self.lr is None or self.lr > 0, "lr must be positive", self.lr)
        _require(0 <= self.momentum < 1, "momentum must lie in [0, 1)", self.momentum)
        _require(all(0 <= b < 1 for b in self.betas), "betas must lie in [0, 1)", self.betas)
        decay, warmup = self.weight_decay, self.warmup_epochs
        _require(decay is None or decay >= 0, "weight_decay must be 0 or more", decay)
        _require(warmup is None or warmup >= 0, "warmup_epochs must be 0 or more", warmup)
        _require(self.lars_trust > 0, "lars_trust must be positive", self.lars_trust)
        usable = not self.nesterov or (self.name == "sgd" and self.momentum > 0)
        _require(usable, "nesterov needs name sgd and momentum above 0", self.name)


@dataclass(frozen=True, kw_only=True)
class ResolvedOptim(OptimConfig):
    """An `OptimConfig` in which nothing is left open."""

    lr: float
    lr_scaling: LrScaling
    weight_decay: float
    warmup_epochs: float
    begin_epoch: int = 0
    """The epoch at which the schedule begins: that at which a run that this one extends ended."""
    tokens_decayed: bool = False
    """Whether class tokens and position tables count as weights, as in runs that began before
    `CONFIG_VERSION` 4."""


def _require(holds: bool, what: str, given: Any) -> None:
    if not holds:
        raise UserError(f"optim.{what}; got {given!r}")


def peak_learning_rate(config: ResolvedOptim, batch_size: int) -> float:
    """The learning rate at the end of warm-up; `batch_size` counts images over all ranks."""
    match config.lr_scaling:
        case "none":
            return config.lr
        case "linear":
            return config.lr * batch_size / 256
        case "sqrt":
            return config.lr * math.sqrt(batch_size)


def resolve(config: OptimConfig, epochs: int) -> ResolvedOptim:
    """The config with nothing left open, for a schedule of this many epochs.

    Raises `UserError` where warm-up would not end before the run does.
    """
    warmup = min(10.0, epochs / 10) if config.warmup_epochs is None else config.warmup_epochs
    _require(warmup < epochs, f"warmup_epochs must be less than the run's {epochs} epochs", warmup)
    left_open = {name: value for name, value in _own(config).items() if vars(config)[name] is None}
    return resolved_as(ResolvedOptim, config, {**left_open, "warmup_epochs": warmup})


def _own(config: OptimConfig) -> dict[str, float | str]:
    """What the optimizer has where the config leaves it open."""
    match config.name:
        case "lars":
            return {"lr": 0.075, "lr_scaling": "sqrt", "weight_decay": 1e-6}
        case "adamw":
            return {"lr": 1e-3, "lr_scaling": "none", "weight_decay": 1e-4}
        case "sgd":
            return {"lr": 0.03, "lr_scaling": "none", "weight_decay": 1e-4}


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear from 0 at step 0 to `peak` at `warmup_steps`, then half a cosine to 0 at
    `total_steps`, and 0 beyond.

    SimCLR's schedule (arXiv 2002.05709, 2.2). Raises `UserError` unless warm-up ends before the
    run does.
    """
    if not 0 <= warmup_steps < total_steps:
        raise UserError(
            "optim: warm-up must be shorter than the run; "
            f"got {warmup_steps} of {total_steps} steps; lower warmup_epochs or train longer"
        )
    if step < warmup_steps:
        return step * (peak / warmup_steps)
    if step >= total_steps:
        return 0.0
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return 0.5 * peak * (1 + math.cos(math.pi * progress))


def schedule(
    config: ResolvedOptim, *, epochs: int, epoch_steps: int, batch_size: int
) -> Callable[[int], float]:
    """The learning rate as a function of the step. Raises `UserError` as `learning_rate` does."""
    begin = config.begin_epoch * epoch_steps
    rate = functools.partial(
        learning_rate,
        peak=peak_learning_rate(config, batch_size),
        warmup_steps=round(config.warmup_epochs * epoch_steps),
        total_steps=epochs * epoch_steps - begin,
    )
    rate(0)
    return lambda step: rate(step - begin)


ParameterGroup = dict[str, Any]
"""Parameters with settings of their own, as torch's optimizers take them."""


def parameter_groups(
    model: nn.Module, weight_decay: float, *, tokens_decayed: bool = False
) -> list[ParameterGroup]:
    """The trainable parameters in the model's order, each once: weights, then all the others.

    The others are neither decayed nor, by LARS, adapted: parameters of at most one dimension
    (biases, scale and shift of normalisation, layer scale) and, unless `tokens_decayed`, those that
    timm's `no_weight_decay` names (class tokens, position tables). A group without parameters is
    left out. Raises `UserError` where nothing is trainable.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise UserError("optim: the model must have a trainable parameter; all are frozen")
    spared = set() if tokens_decayed else set(_spared(model))
    weights = [p for p in parameters if p.ndim > 1 and p not in spared]
    others = [p for p in parameters if p.ndim <= 1 or p in spared]
    groups: list[ParameterGroup] = [
        {"params": weights, "weight_decay": weight_decay, "adapt": True},
        {"params": others, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


@runtime_checkable
class _Sparing(Protocol):
    """A part of a timm model that says which of its parameters are not to be decayed."""

    def no_weight_decay(self) -> Collection[str]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


def _spared(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that a part of the model names, by name or by a pattern such as `pos.*`."""
    parts: list[Any] = list(model.modules())
    for part in parts:
        if isinstance(part, _Sparing):
            patterns = part.no_weight_decay()
            for name, parameter in part.named_parameters():
                if any(fnmatchcase(name, pattern) for pattern in patterns):
                    yield parameter


def build_optimizer(config: ResolvedOptim, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the model's trainable parameters; move the model to its device first.

    The loop overwrites every `group["lr"]` at every step.
    """
    groups = parameter_groups(model, config.weight_decay, tokens_decayed=config.tokens_decayed)
    match config.name:
        case "sgd":
            momentum, nesterov = config.momentum, config.nesterov
            return torch.optim.SGD(
                groups, lr=config.lr, momentum=momentum, nesterov=nesterov, fused=True
            )
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
        case "lars":
            return LARS(
                groups,
                lr=config.lr,
                momentum=config.momentum,
                trust=config.lars_trust,
                variant=config.lars_variant,
            )


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose every tensor moves in proportion to its own norm.

    You, Gitman & Ginsburg, arXiv 1708.03888. With g the gradient, w the weight, λ the decay:

    - `"reference"` (SimCLR's code): g ← g + λw; v ← m·v + lr·(trust·‖w‖/‖g‖)·g; w ← w − v. The
      learning rate enters the buffer, so a step keeps the rate of its own time.
    - `"denominator"` (timm, lightly): v ← m·v + (trust·‖w‖/(‖g‖ + λ‖w‖))·(g + λw); w ← w − lr·v.

    Where ‖w‖ or ‖g‖ is 0, and in groups with `adapt` false, the ratio is 1. Without Nesterov.
    """

    def __init__(
        self,
        groups: list[ParameterGroup],
        *,
        lr: float,
        momentum: float = 0.9,
        trust: float = 0.001,
        variant: Literal["reference", "denominator"] = "reference",
    ) -> None:
        if variant not in ("reference", "denominator"):
            raise UserError(
                f"LARS: variant cannot be {variant!r}: "
                f"{nearest(variant, ['reference', 'denominator'])}"
            )
        defaults = {"lr": lr, "momentum": momentum, "trust": trust, "variant": variant}
        super().__init__(groups, {**defaults, "weight_decay": 0.0, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move every parameter that has a gradient; the gradients stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._move(parameters, group)
        return loss

    def _move(self, parameters: list[Tensor], group: ParameterGroup) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        updates = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        if group["adapt"]:
            torch._foreach_mul_(updates, _trust_ratios(parameters, gradients, updates, group))
        inside = group["variant"] == "reference"
        if inside:
            torch._foreach_mul_(updates, group["lr"])
        buffers = [self._buffer(p) for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(parameters, buffers, alpha=-1.0 if inside else -group["lr"])

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _trust_ratios(
    parameters: list[Tensor], gradients: list[Tensor], decayed: list[Tensor], group: ParameterGroup
) -> list[Tensor]:
    """One scalar for each parameter, without waiting for the device."""
    weight = torch.stack(torch._foreach_norm(parameters))
    if group["variant"] == "reference":
        gradient = torch.stack(torch._foreach_norm(decayed))
        scale = gradient
    else:
        gradient = torch.stack(torch._foreach_norm(gradients))
        scale = gradient + group["weight_decay"] * weight
    ratio = group["trust"] * weight / scale
    return list(torch.where((weight > 0) & (gradient > 0), ratio, 1.0).unbind())
