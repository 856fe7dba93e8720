"""The noise audit: what a head sees of a batch must not say which rows are twins.

A head is trained to match two *independent* views of noise, fresh at every step. There is nothing
to learn about the images: whatever it gets right on fresh noise, it got from the layout of the
batch.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise import heads, rng
from headwise.errors import UserError
from headwise.heads import HEADS, Context, Head, HeadConfig, small_head
from headwise.heads.config import Norm
from headwise.losses import contrastive_logits
from headwise.model.objective import contrastive

# Of AdamW: it finds the whole leak of twin-masked within 300 steps under every norm; at three times
# this rate not under LayerNorm or BatchNorm after the sum.
_LEARNING_RATE = 3e-3

# At most one audit in a thousand finds a leak that is not there.
_CONFIDENCE = 0.999

# Sums in another order, in float64, relative to the largest entry.
_ROUNDING = 1e-9

Verdict = Literal["passes", "passes, tells its view", "may leak", "leaks"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often the twin is the most similar candidate, of all anchors in fresh noise. Candidates
    that tie share the hit, so that chance is exact also for a head that collapsed."""

    value: float
    interval: tuple[float, float]
    """95 % t-interval over batches: the anchors of one batch, twins above all, hit together."""
    chance: float
    above: bool
    """Whether it is above chance with 99.9 % confidence: a one-sided t-test over batches."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a head that was trained on noise knows about fresh noise."""

    head: str
    """Its name, blocks or layers × width, and the settings that are not its defaults."""
    context: Context | None
    """None for heads whose rows do not attend."""
    candidates: str
    """Where an anchor's candidates come from, in training and in the audit: `batch`, or a part of
    it, `batch / 2`."""
    accuracy: Share
    """Contrastive accuracy: among all candidates but the anchor itself."""
    across: Share
    """Among the candidates of the other view."""
    bits: float
    """How far the loss is below the logarithm of the number of candidates: a lower bound on what
    is known of the twin, in bits. Below 0 where the head takes noise for a sign."""
    blind: bool
    """Whether second views that change places among their images (of one part, where the loss has
    parts) take their `z` with them. Then all pairings give the same `z`, and the twin is found in
    the other view at chance, exactly, whatever was learned."""

    @property
    def verdict(self) -> Verdict:
        """`leaks`: the twin was found in the other view more often than chance. `may leak`: it was
        not, but the head is not blind to who is whose twin. `passes, tells its view`: at chance in
        the other view, above it among all, for rows can tell the candidates of their own view, for
        which NT-Xent pays at most 1 / ((2n − 1) τ) nats (docs/heads.md)."""
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
    """Train the head of this config by NT-Xent on noise, `images` a batch with two views each, and
    ask it for twins in `trials` batches of fresh noise.

    `groups` is the number of parts of the batch that candidates come from; by default that of the
    head's own loss. The head stays in training mode, for it is the training loss that could be
    solved by a leak: BatchNorm takes its statistics from the rows of both views, there too. Raises
    `UserError` for images that cannot be cut into groups of at least two and for under two trials.
    """
    groups = heads.loss_groups(config) if groups is None else groups
    if images < 2 * groups or images % groups:
        raise UserError(
            f"a noise audit needs a multiple of {groups} images, at least {2 * groups}; "
            f"got {images}"
        )
    if trials < 2:
        raise UserError(f"a noise audit needs at least two trials; got {trials}")
    head = heads.build_head(config, p, seed)
    shape = (2 * images, p)
    _train(head, shape, steps, temperature, groups, seed)
    generator = rng.generator(seed, "noise audit", "trials")
    found = torch.empty(trials, 3, dtype=torch.float64)
    with torch.no_grad():
        for trial in range(trials):
            z = head(torch.randn(shape, generator=generator))
            found[trial] = trial_of(z, temperature, groups)
    each = images // groups
    return Audit(
        head=describe(config, p),
        context=heads.resolve(config, p).context,
        candidates="batch" if groups == 1 else f"batch / {groups}",
        accuracy=share(found[:, 0], 1 / (2 * each - 1)),
        across=share(found[:, 1], 1 / each),
        bits=math.log2(2 * each - 1) - found[:, 2].mean().item() / math.log(2),
        blind=_is_blind(heads.build_head(config, p, seed), shape, groups),
    )


def noise_audits(
    config: HeadConfig, *, p: int = 64, steps: int = 300, seed: int = 0
) -> list[Audit]:
    """The audit of a head under its own loss, and, where that takes its candidates from parts of
    the batch, under the loss over the whole batch too, which says what the parts are for."""
    groups = sorted({heads.loss_groups(config), 1}, reverse=True)
    return [noise_audit(config, groups=each, p=p, steps=steps, seed=seed) for each in groups]


def _train(
    head: Head, shape: tuple[int, int], steps: int, temperature: float, groups: int, seed: int
) -> None:
    parameters = list(head.parameters())
    if not parameters:
        return
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)
    generator = rng.generator(seed, "noise audit", "training")
    for _ in range(steps):
        z0, z1 = head(torch.randn(shape, generator=generator)).chunk(2)
        optimizer.zero_grad()
        contrastive("nt-xent", z0, z1, temperature, groups=groups).loss.backward()
        optimizer.step()


def trial_of(z: Float[Tensor, "m d"], temperature: float, groups: int = 1) -> Float[Tensor, " 3"]:
    """Of one batch: the share of anchors whose twin is the most similar of all candidates, the same
    among those of the other view, and NT-Xent in nats. In float64, where projections that are
    nearly one still differ."""
    parts = zip(*(view.chunk(groups) for view in z.double().chunk(2)), strict=True)
    return torch.stack([_trial(z0, z1, temperature) for z0, z1 in parts]).mean(0)


def _trial(
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


def _is_blind(head: Head, shape: tuple[int, int], groups: int) -> bool:
    """Whether every row keeps its `z` when second views change places within groups. Asked of
    fresh weights: a trained head may have learned to look at nothing."""
    generator = rng.generator(0, "noise audit", "partners")
    first, second = torch.arange(shape[0]).chunk(2)
    order = [part[torch.randperm(len(part), generator=generator)] for part in second.chunk(groups)]
    moved = torch.cat([first, *order])
    h = torch.randn(shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        z = head.double()(h)
        return bool((head(h[moved]) - z[moved]).abs().max() <= _ROUNDING * z.abs().max())


def share(hits: Float[Tensor, " trials"], chance: float) -> Share:
    """The mean over batches of noise, and whether it is above chance.

    Hits are rare, so their mean leans to the right of its normal distribution, and the one-sided
    test errs on the side of fewer false alarms than it states.
    """
    from scipy.stats import t

    mean, freedom = hits.mean().item(), len(hits) - 1
    error = hits.std().item() / len(hits) ** 0.5
    half = float(t.ppf(0.975, freedom)) * error
    return Share(
        value=mean,
        interval=(max(0.0, mean - half), min(1.0, mean + half)),
        chance=chance,
        above=mean - float(t.ppf(_CONFIDENCE, freedom)) * error > chance,
    )


def describe(config: HeadConfig, p: int) -> str:
    """A head in few words: `transformer 4 × 256, norm post`."""
    mine = asdict(heads.resolve(config, p))
    usual = asdict(heads.resolve(HeadConfig(name=config.name), p))
    sizes = " × ".join(str(mine[key]) for key in ("depth", "width") if mine[key] is not None)
    unsaid = {"name", "context", "depth", "width", "output_size", "num_heads", "ratio"}
    differing = [
        _words(key.replace("_", " "), value)
        for key, value in mine.items()
        if key not in unsaid and value != usual[key]
    ]
    return ", ".join([f"{config.name} {sizes}".strip(), *differing])


def _words(setting: str, value: bool | float | str | None) -> str:
    if isinstance(value, bool):
        return setting if value else f"no {setting}"
    return f"{setting} {value:.3g}" if isinstance(value, float) else f"{setting} {value}"


def shipped_heads() -> dict[str, HeadConfig]:
    """Every head in every context and with every choice of its settings, at a size to audit."""
    stack = {"depth": 2, "width": 64, "output_size": 64}
    transformer = HeadConfig(name="transformer", num_heads=4, **stack)
    transfusion = HeadConfig(name="transfusion", **stack)
    contexts: tuple[Context, ...] = get_args(Context)
    norms: tuple[Norm, ...] = get_args(Norm)
    several = ("ffn-matched", "transformer", "transfusion")
    found: dict[str, HeadConfig] = {name: small_head(name) for name in HEADS if name not in several}
    found["mlp, no BatchNorm"] = HeadConfig(name="mlp", batch_norm=False, **stack)
    for norm in norms:
        found[f"ffn-matched, {norm}"] = HeadConfig(name="ffn-matched", norm=norm, **stack)
    for context, norm in itertools.product(contexts, norms):
        found[f"transformer, {context}, {norm}"] = replace(transformer, context=context, norm=norm)
    found |= {
        "transformer, uniform": replace(transformer, attention="uniform"),
        "transformer, double projection": replace(transformer, norm="post", double_projection=True),
        "transformer, first published": replace(
            transformer, norm="batch", residual=0.0, activation="relu"
        ),
        "transformer, DeepNorm": replace(transformer, norm="post", residual=4**0.25),
        "transformer, mlp output": replace(transformer, norm="post", output="mlp", width=None),
    }
    for context in contexts:
        found[f"transfusion, {context}"] = replace(transfusion, context=context)
    for place in ("before", "inside"):
        found[f"transfusion, {place}"] = replace(transfusion, place=place)
    return found


def audit_table(audits: Iterable[Audit]) -> str:
    """The audits as plain lines, shares in per cent."""
    share_titles = ["all [95 %]", "chance", "other view [95 %]", "chance"]
    rows = [["head", "context", "candidates", *share_titles, "bits", "verdict"]]
    for audit in audits:
        shares = [
            text
            for found in (audit.accuracy, audit.across)
            for text in (_percent(found), f"{100 * found.chance:.1f}")
        ]
        names = (audit.head, audit.context or "none", audit.candidates)
        rows.append([*names, *shares, f"{audit.bits:+.2f}", audit.verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _percent(found: Share) -> str:
    low, high = found.interval
    return f"{100 * found.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
