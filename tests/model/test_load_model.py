"""The model of a run in Python, and a head that must be told what its rows are."""

from pathlib import Path

import pytest
import torch

from headwise import load_encoder, load_model, prepare, pretrain
from headwise.data import open_images
from headwise.errors import UserError
from headwise.heads import HeadConfig, build_head
from headwise.model.config import PretrainConfig


def test_the_model_of_a_run_has_its_encoder_and_its_head(
    tiny: PretrainConfig, tmp_path: Path
) -> None:
    run = pretrain(tiny, tmp_path / "run", quiet=True)
    model, encoder = load_model(run.path), load_encoder(run)
    assert not model.training
    pixels = open_images(tiny.data).train.pixels[:3]  # type: ignore[union-attr]
    from PIL import Image

    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]
    x = prepare(pictures, model.encoder)
    assert torch.equal(x, prepare(pictures, encoder))
    with torch.no_grad():
        h = model.encoder(x)
        torch.testing.assert_close(h, encoder(x))
        z = model.head(h)
    assert z.shape == (3, 8)
    assert torch.equal(model.head.taps(h)["z"], z)


@pytest.mark.parametrize("context", ["joint", "per-view", "twin-masked"])
def test_a_head_that_sees_the_batch_must_be_told_the_views(context: str) -> None:
    config = HeadConfig(name="transformer", depth=1, width=8, num_heads=2, context=context)  # type: ignore[arg-type]
    head, h = build_head(config, 6).eval(), torch.randn(4, 6)
    for call in (head, head.taps, lambda h: list(head.attention(h))):
        with pytest.raises(UserError, match=r"needs `views`; got none; pass views=1"):
            call(h)
    assert head(h, views=1).shape == head(h, views=2).shape


def test_a_head_that_sees_each_row_alone_needs_no_views() -> None:
    h = torch.randn(4, 6)
    for config in (HeadConfig(name="mlp"), HeadConfig(name="transformer", context="self")):
        head = build_head(config, 6).eval()
        assert torch.equal(head(h), head(h, views=2))
