"""L2-regularised multinomial logistic regression by L-BFGS, on the device of the features."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from headwise.runtime import hardware

# Rows are passed over in blocks that stay in a core's cache between the two products of a step:
# 1 MiB of float32. On a GPU all at once.
_BLOCK_ELEMENTS = 1 << 18


@torch.no_grad()
def fit_logistic(
    x: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    *,
    num_classes: int,
    penalty: float,
    start: tuple[Float[Tensor, "c p"], Float[Tensor, " c"]] | None = None,
    tolerance: float = 1e-8,
) -> tuple[Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """Weight and bias that minimise mean cross-entropy + penalty/2 · ‖weight‖² (bias is free).

    The tables stay on their device in float32; the parameters are float64 on the CPU. L-BFGS sees
    each weight divided by its `_step_sizes`, which changes no minimum: on features along their
    principal axes it takes a third of the evaluations. `start` is a point to begin from. Decreases
    of the objective below `tolerance` (relative) end the search; at the default a float32 loss is
    still smooth, and ten times more or less changed no prediction but near ties. Centre the
    features: where their mean dwarfs their spread, float32 ends the search early.
    """
    x, y = x.detach().float(), y.long()
    steps = _step_sizes(x, num_classes, penalty)
    begin = np.zeros((num_classes, len(steps)))
    if start is not None:
        begin[:] = torch.column_stack(start).double().cpu().numpy()

    def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = scaled.reshape(begin.shape) * steps
        loss, gradient = _cross_entropy(parameters, x, y)
        weight = parameters[:, :-1]
        gradient[:, :-1] += penalty * weight
        return loss + penalty / 2 * np.square(weight).sum(), (gradient * steps).ravel()

    # Its exit status is not read: besides success it can only say that float32 allows no further
    # decrease, or that 2,000 iterations were not enough, where the point is still the best known.
    options = {"ftol": tolerance, "gtol": 1e-8, "maxiter": 2000, "maxfun": 4000}
    with hardware.threads_for(x.numel() * num_classes):
        found = minimize(
            objective, (begin / steps).ravel(), jac=True, method="L-BFGS-B", options=options
        )
    parameters = torch.from_numpy(found.x.reshape(begin.shape) * steps).to(x.device, x.dtype)
    return parameters[:, :-1].contiguous(), parameters[:, -1].contiguous()


def scores(
    model: tuple[Float[Tensor, "c p"], Float[Tensor, " c"]], x: Float[Tensor, "n p"]
) -> Float[Tensor, "n c"]:
    """A model's logits."""
    weight, bias = model
    return torch.addmm(bias, x, weight.T)


def _cross_entropy(parameters: np.ndarray, x: Tensor, y: Tensor) -> tuple[float, np.ndarray]:
    """Mean cross-entropy and its gradient by `parameters`, `[c, p + 1]`, the bias last."""
    theta = torch.from_numpy(parameters).to(x.device, x.dtype)
    share = math.ceil(len(x) / (torch.get_num_threads() if x.device.type == "cpu" else 1))
    slices = [slice(i, i + share) for i in range(0, len(x), share)]
    # In the order of the rows, whichever thread was first: the same sum every time.
    sums = hardware.on_threads(lambda rows: _sums(theta, x[rows], y[rows]), slices)
    loss, gradient = (torch.stack(part).sum(0) / len(x) for part in zip(*sums, strict=True))
    return loss.item(), gradient.double().cpu().numpy()


def _sums(theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and its gradient by `theta`, summed over the rows."""
    weight, bias = theta[:, :-1].contiguous(), theta[:, -1:]
    loss = torch.zeros((), dtype=torch.double, device=x.device)
    gradient = torch.zeros_like(theta)
    block = max(1, _BLOCK_ELEMENTS // x.shape[1]) if x.device.type == "cpu" else len(x)
    with torch.autocast(x.device.type, enabled=False):
        for part, labels in zip(x.split(block), y.split(block), strict=True):
            rows = torch.arange(len(part), device=x.device)
            # Classes first: a softmax over the first of two dimensions is up to 20 × faster on a
            # CPU.
            log_probabilities = (weight @ part.T).add_(bias).log_softmax(0)
            loss -= log_probabilities[labels, rows].sum(dtype=torch.double)
            residual = log_probabilities.exp_()
            residual[labels, rows] -= 1
            gradient[:, :-1] += residual @ part
            gradient[:, -1] += residual.sum(1)
    return loss, gradient


def _step_sizes(x: Tensor, num_classes: int, penalty: float) -> np.ndarray:
    """1/√curvature of the objective along each weight and the bias, at equal probabilities."""
    spread = (1 - 1 / num_classes) / num_classes
    curvature = spread * x.square().mean(0).double().cpu().numpy() + penalty
    return 1 / np.sqrt(np.append(curvature, spread))
