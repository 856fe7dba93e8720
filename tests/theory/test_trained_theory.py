"""What is read off a trained head, on heads whose weights are set by hand."""

import pytest
import torch
from torch import nn

from headwise.errors import UserError
from headwise.heads import Head, HeadConfig, build_head
from headwise.heads.blocks import Block
from headwise.heads.config import Norm
from headwise.theory.map import BatchShape, Cosines
from headwise.theory.simulation import draw_tokens
from headwise.theory.studies import StudyPoint, agreement
from headwise.theory.trained import log_attention_on_cosine, mean_block, trained_theory

WIDTH = 256


def identity_block(beta: float, residual: float, norm: Norm) -> Block:
    """The theory's layer as a Transformer block: queries, keys and values are the rows that enter
    attention, of length √w; no feed-forward part."""
    block = Block(WIDTH, num_heads=1, norm=norm)
    length = WIDTH**0.5
    eye = torch.eye(WIDTH)
    scale = (beta * length / length**2) ** 0.5
    nn.init.zeros_(block.qkv.bias)
    block.qkv.weight.data = torch.cat([scale * eye, scale * eye, eye])
    block.merge.weight.data = eye / residual / (length if norm == "pre" else 1)
    nn.init.zeros_(block.merge.bias)
    for parameter in block.feed_forward[-1].parameters():
        nn.init.zeros_(parameter)
    for module in block.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-12
    return block


def tokens(norm: str, twin: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters whose rows have no mean over coordinates, so that LayerNorm only scales them."""
    cosines = Cosines(0.4, 0.1, twin)
    x, labels = draw_tokens(cosines, BatchShape(classes=4, per_class=64, width=WIDTH - 1), 0)
    mixture = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    mixture[:, 0] = 1
    basis = torch.linalg.qr(mixture).Q[:, 1:]
    x = x @ basis.T
    return (x * WIDTH**0.5 if norm == "post" else x), labels


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(("context", "views"), [("joint", 2), ("per-view", 2), ("joint", 1)])
def test_a_head_that_is_the_theory(norm, context, views):
    beta, residual = 5.0, 0.7
    blocks = [identity_block(beta, residual, norm) for _ in range(2)]
    head = Head([*blocks, nn.Linear(WIDTH, 8)], context).double().eval()
    h, labels = tokens(norm, 0.8 if views == 2 else None)
    found = trained_theory(head, h, labels, views)
    assert [one.tap for one in found] == ["g1", "g2"]
    first = found[0]
    assert first.betas == pytest.approx((beta,), rel=1e-6)
    assert first.beta_fit == pytest.approx((1.0,), rel=1e-6)
    assert first.layer.residual == pytest.approx(residual, rel=1e-6)
    assert first.layer.alignment == pytest.approx(1.0, abs=1e-6)
    assert not first.layer.centred
    joint = context == "joint" and views == 2
    assert (first.before.twin is not None) is joint
    assert first.batch.per_class == pytest.approx(64 if joint or views == 1 else 32)
    assert first.batch.classes == pytest.approx(4)
    assert first.batch.width == pytest.approx(WIDTH, rel=0.7)
    for one in found:
        assert one.betas == pytest.approx((beta,), rel=1e-5)
        assert one.predicted[:2] == pytest.approx(one.measured[:2], rel=0.02, abs=0.002)
        assert one.from_weights[:2] == pytest.approx(one.measured[:2], rel=0.02, abs=0.002)
        assert one.predicted_gain == pytest.approx(one.measured_gain, rel=0.03)
        assert one.predicted_mass == pytest.approx(one.measured_mass, rel=0.03)
    assert found[1].before == pytest.approx(first.measured)


def test_an_untrained_head_is_not_the_theory():
    head = build_head(HeadConfig(name="transformer", depth=2, width=32, num_heads=4), 16).eval()
    h, labels = draw_tokens(
        Cosines(0.4, 0.1, 0.8), BatchShape(classes=4, per_class=32, width=16), 0
    )
    found = trained_theory(head, h.float(), labels)
    assert [one.tap for one in found] == list(head.block_taps)
    for one in found:
        assert len(one.betas) == 4
        assert max(one.beta_fit) < 0.9
        assert abs(one.layer.alignment) < 0.9
        assert one.predicted_gain > 0


def test_the_slope_of_log_attention():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 20, 6, generator=generator, dtype=torch.float64)
    unit = rows / rows.norm(dim=-1, keepdim=True)
    weights = (3.5 * unit @ unit.mT).softmax(-1)
    assert log_attention_on_cosine(weights, rows) == pytest.approx((3.5, 1.0))
    weights[:, 0, 1:] = 0  # out of sight
    assert log_attention_on_cosine(weights, rows) == pytest.approx((3.5, 1.0))
    even = torch.full((1, 20, 20), 0.05, dtype=torch.float64)
    assert log_attention_on_cosine(even, rows[:1]).slope == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(name="mlp"),
        HeadConfig(name="transformer", width=32, num_heads=4, context="self"),
        HeadConfig(name="transformer", width=32, num_heads=4, context="halves"),
        HeadConfig(name="transfusion", width=32),
    ],
)
def test_heads_that_the_theory_is_not_of(config):
    head = build_head(config, 16).eval()
    with pytest.raises(UserError, match="joint or per-view"):
        trained_theory(head, torch.zeros(8, 16), torch.tensor([0, 0, 1, 1]))


def test_the_mean_of_batches():
    head = Head([identity_block(5.0, 1.0, "pre")], "joint").double().eval()
    h, labels = tokens("pre", 0.8)
    one = trained_theory(head, h, labels)[0]
    assert mean_block([one, one]) == one
    other = one._replace(measured_gain=one.measured_gain + 2, betas=(7.0,))
    both = mean_block([one, other])
    assert both.measured_gain == pytest.approx(one.measured_gain + 1)
    assert both.betas == pytest.approx((one.betas[0] / 2 + 3.5,))


def test_agreement_is_of_changes_from_the_reference():
    def point(setting, tap, predicted, measured):
        return StudyPoint(setting, tap, predicted, measured, 0.1, 0.1, 0.3, setting == 8.0)

    points = [
        point(8.0, "g1", 2.0, 3.0),
        point(4.0, "g1", 1.0, 1.5),
        point(2.0, "g1", 0.5, 0.75),
        point(8.0, "g2", 4.0, 4.0),
        point(4.0, "g2", 4.0, 4.0),
        point(2.0, "g2", 4.0, 4.0),
    ]
    found = agreement(points)
    assert found.correlation == pytest.approx(1.0)
    assert found.error == pytest.approx(0.0, abs=1e-12)
    assert found.change == pytest.approx(0.75 * 0.693147, rel=1e-5)
