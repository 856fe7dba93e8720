"""The noise audits of the shipped heads, and their table."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from headwise.heads import HEADS, Context, HeadConfig, small_head
from headwise.heads.config import Norm
from headwise.model.noise_audit import Audit, HitRate


def shipped_heads() -> dict[str, HeadConfig]:
    """Return every head in every context and with every choice of its settings, at a small size."""
    stack = {"depth": 2, "width": 64, "output_size": 64}
    transformer = HeadConfig(name="transformer", num_heads=4, **stack)
    transfusion = HeadConfig(name="transfusion", **stack)
    contexts: tuple[Context, ...] = get_args(Context)
    norms: tuple[Norm, ...] = get_args(Norm)
    several = ("ffn-matched", "transformer", "transfusion")
    configs: dict[str, HeadConfig] = {
        name: small_head(name) for name in HEADS if name not in several
    }
    configs |= {
        "identity, BatchNorm": HeadConfig(name="identity", batch_norm=True),
        "linear, no BatchNorm": replace(configs["linear"], batch_norm=False),
        "mlp, no BatchNorm": replace(configs["mlp"], batch_norm=False),
        "mlp, shift": replace(configs["mlp"], shift=True),
    }
    for norm in norms:
        configs[f"ffn-matched, {norm}"] = HeadConfig(name="ffn-matched", norm=norm, **stack)
    for context, norm in itertools.product(contexts, norms):
        name = f"transformer, {context}, {norm}"
        configs[name] = replace(transformer, context=context, norm=norm)
    configs |= {
        "transformer, uniform": replace(transformer, attention="uniform"),
        "transformer, double projection": replace(transformer, norm="post", double_projection=True),
        "transformer, first published": replace(
            transformer, norm="batch", residual=0.0, activation="relu"
        ),
        "transformer, DeepNorm": replace(transformer, norm="post", residual=4**0.25),
        "transformer, mlp output": replace(transformer, norm="post", output="mlp", width=None),
    }
    for context in contexts:
        configs[f"transfusion, {context}"] = replace(transfusion, context=context)
    for place in ("before", "inside"):
        configs[f"transfusion, {place}"] = replace(transfusion, place=place)
    return configs


def audit_table(audits: Iterable[Audit]) -> str:
    """Return the audits as a text table, with rates in per cent."""
    rate_titles = ["all [95 %]", "chance", "other view [95 %]", "chance"]
    rows = [["head", "context", "candidates", *rate_titles, "bits", "verdict"]]
    for audit in audits:
        rates = [
            text
            for rate in (audit.accuracy, audit.across)
            for text in (_percent(rate), f"{100 * rate.chance:.1f}")
        ]
        names = (audit.head, audit.context or "none", audit.candidates)
        rows.append([*names, *rates, f"{audit.bits:+.2f}", audit.verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _percent(rate: HitRate) -> str:
    low, high = rate.interval
    return f"{100 * rate.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
