"""The noise audit: a head must not be able to tell from the layout of a batch which rows are twins.

A head is trained to match two *independent* views of noise, which is new at every step. There is
nothing to learn about images, so if the head finds twins in new noise, it uses the layout.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import heads, rng
from headwise.errors import UserError
from headwise.heads import Context, Head, HeadConfig
from headwise.heads.own_head import moved_weights
from headwise.losses import NtXent, contrastive_logits
from headwise.model.objective import contrastive

log = logging.getLogger("headwise")

# The rate of AdamW. It finds the whole leak of twin-masked within 300 steps under every norm; at
# three times this rate it does not under LayerNorm or BatchNorm after the sum.
_LEARNING_RATE = 3e-3

# At most one audit in a thousand reports a leak that does not exist.
_CONFIDENCE = 0.999

# The error of float64 sums in another order, relative to the largest entry.
_ROUNDING = 1e-9

Verdict = Literal["passes", "passes, tells its view", "may leak", "leaks"]


@dataclass(frozen=True, kw_only=True)
class HitRate:
    """How often the twin is the most similar candidate, over all anchors in new noise. Candidates
    that tie share the hit, so chance is exact even for a collapsed head."""

    value: float
    interval: tuple[float, float]
    """95 % t-interval over batches, because the hits within a batch depend on each other."""
    chance: float
    above: bool
    """Whether the value is above chance with 99.9 % confidence (one-sided t-test over batches)."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a head trained on noise finds in new noise."""

    head: str
    """Name, blocks or layers × width, and the settings that are not defaults."""
    context: Context | None
    """None for heads without attention."""
    candidates: str
    """What an anchor's candidates come from, in training and audit: `batch`, or `batch / 2`."""
    accuracy: HitRate
    """Contrastive accuracy: the rate among all candidates."""
    across: HitRate
    """The rate among the candidates of the other view."""
    bits: float
    """How far the loss is below the logarithm of the number of candidates. This is a lower bound on
    the information about the twin, in bits; negative if the head fits noise."""
    blind: bool
    """Whether swapping two second views (of one part, if the loss has parts) only swaps their `z`.
    Then, whatever the head has learned, it finds the twin in the other view exactly at chance."""

    @property
    def verdict(self) -> Verdict:
        """`leaks`: the head finds the twin in the other view more often than by chance. `may leak`:
        it does not, but it is not blind to the pairing. `passes, tells its view`: the rate is above
        chance only among all candidates, because rows recognise candidates of their own view, from
        which NT-Xent gains at most 1 / ((2n − 1) τ) nats (docs/heads.md)."""
        if self.across.above:
            return "leaks"
        if not self.blind:
            return "may leak"
        return "passes, tells its view" if self.accuracy.above else "passes"


def noise_audit(
    config: HeadConfig,
    *,
    groups: int | None = None,
    images: int = 32,
    p: int = 64,
    steps: int = 300,
    trials: int = 200,
    temperature: float = 0.5,
    seed: int = 0,
) -> Audit:
    """Train a head by NT-Xent on noise, with two views of each of `images` images per batch, and
    measure how often it finds the twin in `trials` batches of new noise.

    `groups` is the number of parts into which the loss cuts the batch; the default is that of the
    head's own loss. The head stays in training mode, because a leak would solve the training loss,
    where BatchNorm takes its statistics from the rows of both views. Raises `UserError` if the
    images cannot be cut into groups of at least two, and for fewer than two trials.
    """
    groups = heads.loss_groups(config) if groups is None else groups
    if images < 2 * groups or images % groups:
        raise UserError(
            f"a noise audit needs a multiple of {groups} images, at least {2 * groups}; "
            f"got {images}"
        )
    if trials < 2:
        raise UserError(f"a noise audit needs at least two trials; got {trials}")
    forms, shape = heads.loss_forms(config), (2 * images, p)
    head = heads.build_head(config, p, seed)
    loss = partial(contrastive, "nt-xent", temperature=temperature, groups=groups, forms=forms)
    _train(head, shape, loss, steps=steps, seed=seed)
    generator = rng.generator(seed, "noise audit", "trials")
    scores = torch.empty(trials, 3, dtype=torch.float64)
    with torch.no_grad():
        for trial in range(trials):
            each = head(torch.randn(shape, generator=generator), views=2).chunk(forms, 1)
            scores[trial] = sum(trial_scores(z, temperature, groups) for z in each) / forms
    group_size = images // groups
    return Audit(
        head=describe(config, p),
        context=heads.resolve(config, p).context,
        candidates="batch" if groups == 1 else f"batch / {groups}",
        accuracy=hit_rate(scores[:, 0], 1 / (2 * group_size - 1)),
        across=hit_rate(scores[:, 1], 1 / group_size),
        bits=math.log2(2 * group_size - 1) - scores[:, 2].mean().item() / math.log(2),
        blind=_is_blind(heads.build_head(config, p, seed), shape, groups),
    )


def noise_audits(
    config: HeadConfig, *, p: int = 64, steps: int = 300, seed: int = 0
) -> list[Audit]:
    """Audit a head under its own loss. If that loss cuts the batch into parts, also audit the head
    under the loss over the whole batch, which shows why there are parts."""
    groups = sorted({heads.loss_groups(config), 1}, reverse=True)
    return [noise_audit(config, groups=count, p=p, steps=steps, seed=seed) for count in groups]


def _train(
    head: Head, shape: tuple[int, int], loss: Callable[..., NtXent], *, steps: int, seed: int
) -> None:
    parameters = list(head.parameters())
    if not parameters:
        return
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)
    generator = rng.generator(seed, "noise audit", "training")
    for _ in range(steps):
        z0, z1 = head(torch.randn(shape, generator=generator), views=2).chunk(2)
        optimizer.zero_grad()
        loss(z0, z1).loss.backward()
        optimizer.step()


def trial_scores(
    z: Float[Tensor, "m d"], temperature: float, groups: int = 1
) -> Float[Tensor, " 3"]:
    """Return three scores of one batch: the share of anchors whose twin is the most similar of all
    candidates, the same among the candidates of the other view, and NT-Xent in nats. They are in
    float64, which distinguishes projections that are almost equal."""
    parts = zip(*(view.chunk(groups) for view in z.double().chunk(2)), strict=True)
    return torch.stack([_group_scores(z0, z1, temperature) for z0, z1 in parts]).mean(0)


def _group_scores(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], temperature: float
) -> Float[Tensor, " 3"]:
    logits, positives = contrastive_logits(z0, z1, temperature)
    first = torch.arange(len(logits)) < len(z0)
    across = logits.masked_fill(first[:, None] == first, float("-inf"))
    loss = F.cross_entropy(logits, positives)
    return torch.stack([_hits(logits, positives), _hits(across, positives), loss])


def _hits(logits: Float[Tensor, "m m"], positives: Int64[Tensor, " m"]) -> Float[Tensor, ""]:
    top = (logits == logits.amax(1, keepdim=True)).double()
    return (top.gather(1, positives[:, None]) / top.sum(1, keepdim=True)).mean()


def refuse_leaks(config: HeadConfig, p: int) -> None:
    """Audit an own head that sees the other rows of a batch in training.

    Raises `UserError` if it can tell which rows are twins.
    """
    if config.own is None or not heads.sees_others(heads.build_head(config, p), p, training=True):
        return
    log.info("%s sees the other rows of a batch: training it on noise first", config.own.words)
    with rng.seeded(0, "noise audit", "dropout"):
        audit = noise_audit(config, p=p)
    match audit.verdict:
        case "leaks":
            found = (
                f"on independent noise it finds the twin in {audit.across.value:.1%} of all cases, "
                f"where chance is {audit.across.chance:.1%}"
            )
        case "may leak":
            found = "its z changes with which rows are twins"
        case _:
            return
    raise UserError(
        f"the head {config.own.words} must not tell which rows are twins; the noise audit says: "
        f"{audit.verdict} ({found}), so it can lower the loss without the images; let every row "
        "see the rows of both views alike (docs/own.md)"
    )


def _without_dropout(head: Head) -> Head:
    """The head, whose random parts are off."""
    for module in head.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return head


def _is_blind(head: Head, shape: tuple[int, int], groups: int) -> bool:
    """Return whether every row keeps its `z` when second views are permuted within groups. `head`
    has new weights, because a trained head may have learned to ignore the other rows. They are
    moved a little, because some parts begin at zero, and nothing is dropped at random."""
    generator = rng.generator(0, "noise audit", "partners")
    head = _without_dropout(moved_weights(head))
    first, second = torch.arange(shape[0]).chunk(2)
    order = [part[torch.randperm(len(part), generator=generator)] for part in second.chunk(groups)]
    moved = torch.cat([first, *order])
    h = torch.randn(shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        z = head.double()(h, views=2)
        return bool((head(h[moved], views=2) - z[moved]).abs().max() <= _ROUNDING * z.abs().max())


def hit_rate(hits: Float[Tensor, " trials"], chance: float) -> HitRate:
    """Return the mean over batches of noise, and whether it is above chance.

    Hits are rare, so the distribution of their mean is skewed to the right, and the one-sided test
    has fewer false alarms than it states.
    """
    from scipy.stats import t

    mean, freedom = hits.mean().item(), len(hits) - 1
    error = hits.std().item() / len(hits) ** 0.5
    half = float(t.ppf(0.975, freedom)) * error
    return HitRate(
        value=mean,
        interval=(max(0.0, mean - half), min(1.0, mean + half)),
        chance=chance,
        above=mean - float(t.ppf(_CONFIDENCE, freedom)) * error > chance,
    )


def describe(config: HeadConfig, p: int) -> str:
    """Return a short description of a head, such as `transformer 4 × 256, norm post`."""
    if config.own is not None:
        return config.own.words
    settings = asdict(heads.resolve(config, p))
    defaults = asdict(heads.resolve(HeadConfig(name=config.name), p))
    sizes = " × ".join(
        str(settings[key]) for key in ("depth", "width") if settings[key] is not None
    )
    omitted = {"name", "context", "depth", "width", "output_size", "num_heads", "ratio"}
    differing = [
        _words(key.replace("_", " "), value)
        for key, value in settings.items()
        if key not in omitted and value != defaults[key]
    ]
    return ", ".join([f"{config.name} {sizes}".strip(), *differing])


def _words(setting: str, value: bool | float | str | None) -> str:
    if isinstance(value, bool):
        return setting if value else f"no {setting}"
    return f"{setting} {value:.3g}" if isinstance(value, float) else f"{setting} {value}"
