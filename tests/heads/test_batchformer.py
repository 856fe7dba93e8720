"""BatchFormer's head against the layers of torch that its source is made of."""

import runpy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.heads import HeadConfig, build_head
from headwise.model.config import PretrainConfig
from headwise.model.objective import ClassTargets, class_direction_loss, contrastive
from headwise.pretraining.loop import pretrain

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_batchformer.py"


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_head_and_loss_are_those_of_torchs_own_layer() -> None:
    """The example has torch's encoder layer, as the source. With its weights and without dropout
    it gives the same z, in training and in evaluation, and the same loss."""
    example = runpy.run_path(str(EXAMPLE))
    head = build_head(HeadConfig(name="batchformer", output_size=6), 16).double()
    layers = nn.Sequential(*example["build"](16, dropout=0.0, output_size=6)).double()
    weights = head.get_submodule("layers.0.block").state_dict()
    names = {
        "qkv.": "self_attn.in_proj_",
        "merge.": "self_attn.out_proj.",
        "feed_forward.0.": "linear1.",
        "feed_forward.2.": "linear2.",
        "norm_attention.": "norm1.",
        "norm_feed_forward.": "norm2.",
    }
    for mine, theirs in names.items():
        weights = {name.replace(mine, theirs): value for name, value in weights.items()}
    layers.get_submodule("0.layer").load_state_dict(weights)
    for place in (1, 2):
        values = head.layers[place].state_dict().values()
        layers[place].load_state_dict(dict(zip(layers[place].state_dict(), values, strict=True)))
    h = normal(12, 16)
    z = head(h, views=2)
    assert z.shape == (12, 12)
    torch.testing.assert_close(z, layers(h), rtol=0, atol=1e-12)
    z0, z1 = z.chunk(2)
    loss = contrastive("nt-xent", z0, z1, 0.2, forms=2).loss
    torch.testing.assert_close(loss, example["loss"](z0, z1, 0.2), rtol=0, atol=1e-6)
    found = head.eval()(h, views=2)
    torch.testing.assert_close(found, layers.eval()(h), rtol=0, atol=1e-12)
    # The attention layer is left out: a row's z is its own.
    torch.testing.assert_close(head(h[:1], views=1), found[:1], rtol=0, atol=1e-12)


def test_class_directions_pull_both_forms() -> None:
    target = ClassTargets(torch.tensor([0, 1]), torch.eye(2, 4).double(), 1.0)
    plain, attended = normal(4, 4), normal(4, 4) + 1
    both = class_direction_loss(target, torch.cat([plain, attended]))
    each = [class_direction_loss(target, form) for form in (plain, attended)]
    torch.testing.assert_close(both, torch.stack(each).mean())


def test_it_is_trained_and_measured(tiny: PretrainConfig, tmp_path: Path) -> None:
    head = HeadConfig(name="batchformer", output_size=8)
    run = pretrain(replace(tiny, head=head, epochs=1), tmp_path / "run", quiet=True)
    settings = EvaluateConfig(protocols=("knn", "leakage"), taps=("h", "g1", "z"), baselines=False)
    results = evaluate(run, config=settings)
    assert results["knn/g1"].value == results["knn/h"].value
    assert results["leakage/z"].verdict == "this head does not look at the batch: nothing can leak"
    assert run.metrics()[-1]["loss"] > 0
