"""The noise audit: what a row sees must not give its twin away.

A head is trained to match two *independent* views of noise, fresh every step. There is nothing to
learn about the images; whatever it gets right on fresh noise, it got from the layout of the batch.
"""

import math

import pytest
import torch
from torch import nn

from headwise.heads import HEADS, HeadConfig, build_head, leaks, resolve
from headwise.losses import contrastive_accuracy, contrastive_logits


def transformer(context: str, norm: str) -> HeadConfig:
    return HeadConfig(
        name="transformer",
        depth=3,
        width=64,
        num_heads=4,
        output_size=64,
        context=context,
        norm=norm,
    )


def audit(config: HeadConfig, steps: int = 300, trials: int = 60) -> float:
    """Contrastive accuracy on fresh noise of a head trained on noise."""
    rows, p = 64, 64
    generator = torch.Generator().manual_seed(0)
    head = build_head(config, p, seed=0)
    trained = list(head.parameters())
    optimizer = torch.optim.AdamW(trained, lr=3e-3) if trained else None
    for _ in range(steps if optimizer else 0):
        z = head(torch.randn(rows, p, generator=generator))
        loss = nn.functional.cross_entropy(*contrastive_logits(*z.chunk(2), 0.5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        projections = (head(torch.randn(rows, p, generator=generator)) for _ in range(trials))
        hits = [contrastive_accuracy(*contrastive_logits(*z.chunk(2), 0.5)) for z in projections]
    return torch.stack(hits).mean().item()


AUDITED = {
    **{name: HeadConfig(name=name, output_size=64) for name in ("linear", "mlp")},
    "identity": HeadConfig(name="identity"),
    "ffn": HeadConfig(name="ffn", depth=3, width=64, output_size=64),
    **{
        f"{context}-{norm}": transformer(context, norm)
        for context, norm in (
            ("joint", "post"),
            ("joint", "pre"),
            ("per-view", "pre"),
            ("self", "pre"),
            ("twin-masked", "post"),
            ("twin-masked", "pre"),
        )
    },
}


@pytest.mark.parametrize("name", AUDITED)
def test_noise_audit(name):
    config, chance, anchors = AUDITED[name], 1 / 63, 60 * 64
    accuracy = audit(config)
    if leaks(config):
        assert accuracy > 0.8
    else:
        # Twins hit together: half as many independent trials as anchors.
        error = math.sqrt(chance * (1 - chance) / (anchors / 2))
        assert abs(accuracy - chance) < 4 * error


def test_only_the_negative_control_is_marked_as_leaking():
    marked = {name for name, config in AUDITED.items() if leaks(config)}
    assert marked == {"twin-masked-post", "twin-masked-pre"}
    assert not any(leaks(resolve(HeadConfig(name=name), 64)) for name in HEADS)
