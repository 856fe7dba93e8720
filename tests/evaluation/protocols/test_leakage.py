"""Leakage: heads built to take the label from the batch are caught, others are cleared."""

import dataclasses

import numpy as np
import pytest
import torch
from narrow import present
from torch import nn

from headwise.data import Splits
from headwise.data.images import resident_images
from headwise.evaluation.extracted import ExtractedRun, SplitFeatures
from headwise.evaluation.protocols.leakage import _batches, _gap, leakage, projected
from headwise.features.extract import Features, extract, weights_hash
from headwise.heads import Head, HeadConfig, build_head
from headwise.model.build import build_model
from headwise.model.config import resolve
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import extract_config
from headwise.runs.results import Value

CLASSES = ("a", "b", "c", "d")


class BatchMean(nn.Module):
    """Every row becomes the mean of its batch."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h.mean(0, keepdim=True).expand_as(h).clone()


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(n: int, signal: float, seed: int) -> Features:
    """Noise, and a class mean of this length."""
    labels = torch.arange(n) % len(CLASSES)
    vectors = noise(n, 16, seed=seed)
    vectors[torch.arange(n), labels] += signal
    return Features(vectors, labels, torch.arange(n))


def trained(tiny, tmp_path, head: Head, signal: float = 0.5, batch_size: int = 20) -> ExtractedRun:
    table = SplitFeatures(planted(200, signal, seed=0), planted(160, signal, seed=1))
    images = Splits(
        *(
            resident_images(
                torch.zeros(len(part.vectors), 3, 8, 8, dtype=torch.uint8),
                part.labels,
                CLASSES,
                [str(i) for i in range(len(part.vectors))],
            )
            for part in table
        )
    )
    config = resolve(tiny, images.train)
    return ExtractedRun(
        config=config,
        model=ContrastiveModel(nn.Flatten(), head).eval(),
        images=images,
        extraction=dataclasses.replace(extract_config(config), batch_size=batch_size),
        tables={"h": table},
        folder=tmp_path,
    )


def measured(trained: ExtractedRun) -> dict[str, Value]:
    return {value.key: value for value in leakage(trained, seed=0)}


def test_a_head_that_gives_the_batch_away_is_caught(tiny, tmp_path):
    head = Head([BatchMean()], "joint")
    found = measured(trained(tiny, tmp_path, head, signal=2.0, batch_size=200))
    assert found["leakage_knn/sorted"].value > 0.9
    assert found["leakage_knn/shuffled"].value < 0.4
    assert found["leakage_knn_self/sorted"].value > 0.9
    for name, probe, reader in (
        ("leakage/z", "knn", "k-NN"),
        ("leakage_self/z", "knn_self", "the nearest other test image"),
    ):
        gap = found[name]
        shuffled, in_order = (found[f"leakage_{probe}/{o}"] for o in ("shuffled", "sorted"))
        assert gap.value == pytest.approx(in_order.value - shuffled.value)
        low, high = present(gap.interval)
        assert 0.2 < low <= gap.value <= high
        assert gap.verdict == (
            f"z depends on its batch-mates: in 20 class-sorted batches {reader} reads it "
            f"{100 * gap.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) against "
            "shuffled ones; "
            "the headline number is the shuffled one"
        )


def test_without_any_class_in_h_the_nearest_other_image_still_gives_the_leak_away(tiny, tmp_path):
    found = measured(trained(tiny, tmp_path, Head([BatchMean()], "joint"), signal=0.0))
    assert found["leakage_knn_self/singleton"].value < 0.4
    assert found["leakage_knn_self/sorted"].value == 1
    assert "z depends on its batch-mates" in present(found["leakage_self/z"].verdict)


@pytest.mark.parametrize("sizes", [[100] * 10, [100] * 4, [300, 300, 100, 100, 100], [500, 20, 20]])
def test_without_leakage_a_leak_is_found_at_most_at_the_nominal_rate(sizes):
    """Planted: the images of a batch gain or lose together, and the mean over batches is 0."""
    random, batches = np.random.default_rng(0), list(torch.arange(sum(sizes)).split(sizes))
    found = 0
    for _ in range(500):
        shift = np.repeat(random.normal(scale=0.1, size=len(sizes)), sizes).clip(-0.3, 0.3)
        u = random.uniform(size=len(shift))
        gained = (u < 0.3 + shift).astype(float) - (u > 0.7)
        low, high = present(_gap("leakage", torch.from_numpy(gained), batches).interval)
        found += not low <= 0 <= high
    assert found <= 35  # 5 %, and twice its deviation


def test_a_head_that_copies_shows_no_gap(tiny, tmp_path):
    found = measured(trained(tiny, tmp_path, Head([], "joint")))
    for probe in ("knn", "knn_self"):
        reads = [found[f"leakage_{probe}/{o}"] for o in ("shuffled", "sorted", "singleton")]
        assert len({value.value for value in reads}) == 1
        assert all(value.n == len(present(value.each)) == 160 for value in reads)
    for name in ("leakage/z", "leakage_self/z"):
        assert found[name].value == 0
        assert found[name].interval == (0, 0)
        assert "no leakage into z shown" in present(found[name].verdict)


def test_a_head_that_does_not_look_at_the_batch_cannot_leak(tiny, tmp_path):
    head = build_head(HeadConfig(name="mlp", output_size=8), 16)
    (value,) = leakage(trained(tiny, tmp_path, head), seed=0)
    assert (value.key, value.value, value.n) == ("leakage/z", 0, 160)
    assert value.verdict == "this head does not look at the batch: nothing can leak"


@pytest.fixture
def transformer() -> Head:
    config = HeadConfig(name="transformer", depth=2, width=16, num_heads=2, output_size=8)
    return build_head(config, 16).eval()


def test_a_singleton_sees_nothing_but_itself(transformer, tiny, tmp_path):
    what = trained(tiny, tmp_path, transformer)
    h = what.tables["h"].test
    z = projected(transformer, h, "singleton", what.extraction, seed=0)
    alone = Head(list(transformer.layers), "self")
    with torch.no_grad():
        torch.testing.assert_close(z.vectors, alone(h.vectors, views=1), rtol=1e-4, atol=1e-5)
    assert torch.equal(present(z.labels), present(h.labels))


def test_sorted_batches_hold_one_class_each(transformer, tiny, tmp_path):
    what = trained(tiny, tmp_path, transformer, batch_size=64)
    h = what.tables["h"].test
    z = projected(transformer, h, "sorted", what.extraction, seed=0)
    with torch.no_grad():
        for rows in _batches(h, "sorted", 64, seed=0):
            assert (len(rows), len(present(h.labels)[rows].unique())) == (8, 1)
            expected = transformer(h.vectors[rows], views=1)
            torch.testing.assert_close(z.vectors[rows], expected, rtol=1e-4, atol=1e-5)


def test_shuffled_batches_are_those_of_the_extraction(tiny):
    """So the shuffled number is the headline number, and `h` need not be extracted again."""
    head = HeadConfig(name="transformer", depth=1, width=16, num_heads=2, output_size=8)
    pixels = torch.randint(
        256, (30, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = resident_images(pixels, torch.arange(30) % 2, ("a", "b"), list(map(str, range(30))))
    config = resolve(dataclasses.replace(tiny, head=head), images)
    model = build_model(config)
    for precision in ("float32", "bfloat16"):
        extraction = dataclasses.replace(
            extract_config(config), batch_size=8, seed=3, precision=precision
        )
        before = weights_hash(model)
        found = extract(model.encoder, model.eval().head, images, ["h", "z"], extraction)
        again = projected(model.head, found["h"], "shuffled", extraction, seed=3)
        assert torch.equal(again.vectors, found["z"].vectors)
        other = projected(model.head, found["h"], "shuffled", extraction, seed=4)
        assert not torch.equal(other.vectors, found["z"].vectors)
        assert weights_hash(model) == before
