import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import present
from resolved import resolved_augment, resolved_config
from torch import nn

from headwise.augment import ResolvedAugment
from headwise.data import Splits
from headwise.data.images import resident_images
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun, SplitFeatures
from headwise.evaluation.protocols.geometry import (
    between_taps,
    between_twins,
    cka_between,
    geometry,
)
from headwise.evaluation.statistics import geometry as measures
from headwise.evaluation.statistics.geometry import (
    alignment,
    class_separation,
    effective_rank,
    feature_std,
    linear_cka,
    renyi_mutual_information,
    singular_values,
    twin_distances,
    uniformity,
)
from headwise.features.extract import Features
from headwise.heads import Head
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_alignment_and_uniformity_equal_plain_loops():
    z0, z1 = noise(9, 5), noise(9, 5, seed=1)
    a, b = ((z / z.norm(dim=1, keepdim=True)).double().numpy() for z in (z0, z1))
    twins = [sum((x - y) ** 2) for x, y in zip(a, b, strict=True)]
    pairs = [math.exp(-2 * sum((a[i] - a[j]) ** 2)) for i in range(9) for j in range(i)]
    assert alignment(z0, z1).item() == pytest.approx(sum(twins) / 9, rel=1e-5)
    np.testing.assert_allclose(twin_distances(z0, z1).numpy(), twins, rtol=1e-5)
    assert uniformity(z0).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)


def test_alignment_runs_from_equal_to_opposite_twins():
    z = noise(8, 4)
    assert alignment(z, 3 * z).item() == pytest.approx(0, abs=1e-12)
    assert alignment(z, -z).item() == pytest.approx(4, rel=1e-6)


def test_uniformity_of_the_sphere_is_the_known_value():
    """On a sphere of d dimensions x·y has variance 1/d, so E exp(4 x·y − 4) ≈ exp(−4 + 8/d)."""
    assert uniformity(noise(1500, 256)).item() == pytest.approx(-4 + 8 / 256, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 30), p=st.integers(1, 30), seed=st.integers(0, 99))
def test_spectra_equal_numpys(n, p, seed):
    x = noise(n, p, seed=seed) + 0.5
    values = np.linalg.svd(x.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    expected = math.exp(-(shares * np.log(shares + 1e-300)).sum())
    assert effective_rank(x).item() == pytest.approx(expected, rel=1e-4)
    assert 1 - 1e-5 <= effective_rank(x).item() <= min(n, p) * (1 + 1e-5)
    covariance = np.cov(x.double().numpy(), rowvar=False, bias=True).reshape(p, p)
    expected = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(singular_values(x).numpy(), expected, rtol=1e-3, atol=1e-5)


def test_planted_ranks_are_found():
    basis = torch.linalg.qr(noise(64, 64)).Q
    assert effective_rank(basis[:7]).item() == pytest.approx(7, rel=1e-4)
    low = noise(100, 3) @ noise(3, 20, seed=1)
    values = singular_values(low)
    assert values[2] > 1
    assert values[3:].max() < 1e-8 * values[0]


@pytest.mark.parametrize("row", [torch.ones(6), torch.zeros(6), 1e-30 * torch.ones(6)])
def test_collapse_is_finite_and_shows(row):
    z = row.expand(10, 6)
    assert alignment(z, z).item() == 0
    assert uniformity(z).item() == 0
    assert effective_rank(z).item() == pytest.approx(1, abs=1e-3)
    assert singular_values(z).max().item() == pytest.approx(0, abs=1e-10)
    assert feature_std(z).item() == pytest.approx(0, abs=1e-6)
    assert class_separation(z, torch.arange(10) % 2).item() == 0
    assert linear_cka(z, noise(10, 3)).item() == 0
    assert renyi_mutual_information(row.expand(10, 6), noise(10, 3)).isfinite()


@pytest.mark.parametrize("measure", [uniformity, effective_rank, singular_values, feature_std])
def test_autocast_and_half_precision_stay_float32(measure):
    x = noise(32, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        inside = measure(x.requires_grad_())
    assert inside.dtype == torch.float32
    assert not inside.requires_grad
    torch.testing.assert_close(inside, measure(x.float()), rtol=0, atol=0)
    assert measure(x.double()).dtype == torch.float64


def test_uniformity_and_alignment_ignore_length():
    z, scale = noise(20, 8), 1 + torch.arange(20.0)[:, None]
    torch.testing.assert_close(uniformity(scale * z), uniformity(z))
    torch.testing.assert_close(
        alignment(scale * z, z.flip(0)), alignment(F.normalize(z), z.flip(0))
    )


def test_uniformity_needs_a_pair():
    with pytest.raises(UserError, match="at least 2 rows; got 1"):
        uniformity(noise(1, 8))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 30), p=st.integers(1, 9), q=st.integers(1, 9), seed=st.integers(0, 99))
def test_measures_of_two_features_equal_plain_matrices(n, p, q, seed):
    x, y = noise(n, p, seed=seed) + 0.5, noise(n, q, seed=seed + 1)
    a, b = x.double().numpy(), y.double().numpy()
    centre = np.eye(n) - 1 / n
    k1, k2 = (centre @ m @ m.T @ centre for m in (a, b))
    expected = (k1 * k2).sum() / np.linalg.norm(k1) / np.linalg.norm(k2)
    assert linear_cka(x, y).item() == pytest.approx(expected, rel=1e-6)
    lengths = (np.sqrt(np.diag(k))[:, None] for k in (k1, k2))
    k1, k2 = (k / length / length.T for k, length in zip((k1, k2), lengths, strict=True))
    h1, h2, h12 = (-math.log(np.trace((k / n) @ (k / n))) for k in (k1, k2, k1 * k2))
    found = renyi_mutual_information(x, y).item()
    assert found == pytest.approx(h1 + h2 - h12, rel=1e-4, abs=1e-5)
    std = np.std(a / np.linalg.norm(a, axis=1, keepdims=True), axis=0).mean() * math.sqrt(p)
    assert feature_std(x).item() == pytest.approx(std, rel=1e-4, abs=1e-6)


def test_blocks_of_rows_add_up_to_the_whole(monkeypatch):
    x, y = noise(50, 6), noise(50, 4, seed=1)
    whole = renyi_mutual_information(x, y)
    monkeypatch.setattr(measures, "_BLOCK_ROWS", 7)
    torch.testing.assert_close(renyi_mutual_information(x, y), whole)


def test_class_separation_equals_plain_loops_and_the_ratio_of_scatters():
    x, labels = noise(30, 4), torch.arange(30) % 3 * 5  # labels need not be 0, 1, 2
    rows, mean = x.double().numpy(), x.double().numpy().mean(0)
    between = within = 0.0
    for label in (0, 5, 10):
        mine = rows[labels.numpy() == label]
        between += len(mine) * ((mine.mean(0) - mean) ** 2).sum()
        within += ((mine - mine.mean(0)) ** 2).sum()
    ratio = between / within
    assert class_separation(x, labels).item() == pytest.approx(ratio / (1 + ratio), rel=1e-9)


def test_class_separation_of_points_of_noise_and_of_means_that_agree():
    labels = torch.arange(3000) % 3
    means = noise(3, 5)
    assert class_separation(means[labels], labels).item() == pytest.approx(1, abs=1e-9)
    assert class_separation(noise(3000, 50), labels).item() == pytest.approx(2 / 2999, rel=0.5)
    opposite = noise(3000, 5)
    both = torch.cat([opposite, -opposite])
    assert class_separation(both, torch.cat([labels, labels])).item() < 1e-12


def test_cka_ignores_rotation_scale_and_shift_and_is_low_for_unrelated_features():
    x = noise(2000, 16)
    rotation = torch.linalg.qr(noise(16, 16, seed=1)).Q
    assert linear_cka(x, 3 * x @ rotation + 7).item() == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, noise(2000, 16, seed=2)).item() < 0.02
    half = linear_cka(x, torch.cat([x[:, :8], noise(2000, 8, seed=3)], 1)).item()
    assert half == pytest.approx(0.5, abs=0.03)


def test_renyi_information_of_planted_classes():
    """Centred one-hot rows of c classes in equal numbers have a cosine of 1 or of −1/(c − 1). Those
    of all pairs of two independent classes tell nothing of each other."""
    a, b = torch.arange(60) % 3, torch.arange(60) % 4
    x, y = (F.one_hot(labels).float() for labels in (a, b))
    assert renyi_mutual_information(x, x).item() == pytest.approx(math.log(3 / 2), rel=1e-6)
    assert renyi_mutual_information(x, y).item() == pytest.approx(0, abs=1e-6)
    for constant in (torch.ones(60, 2), torch.full((60, 2), 0.1), torch.zeros(60, 2)):
        assert renyi_mutual_information(x, constant).item() == 0
        assert renyi_mutual_information(constant, constant).item() == 0


def test_renyi_information_is_centred_and_of_half_of_h_between_all_and_nothing():
    h = noise(2000, 8)
    whole = renyi_mutual_information(h, h).item()
    rotation = torch.linalg.qr(noise(8, 8, seed=1)).Q
    assert renyi_mutual_information(h, 3 * h @ rotation + 7).item() == pytest.approx(whole, 1e-4)
    half = renyi_mutual_information(h, h[:, :4]).item()
    nothing = renyi_mutual_information(h, noise(2000, 4, seed=2)).item()
    shuffled = renyi_mutual_information(h, h[torch.randperm(2000), :4]).item()
    assert whole > half + 0.2 > nothing + 0.4
    assert nothing == pytest.approx(shuffled, abs=0.01)


def test_a_function_of_h_may_have_more_renyi_information_with_h_than_h_itself():
    """Why a smaller value does not mean that the head discards more: here z has the direction of h
    in twelve steps, and nothing else."""
    h = noise(1000, 2)
    angle = torch.atan2(h[:, 1], h[:, 0]).remainder(math.pi)
    z = F.one_hot((12 * angle / math.pi).long(), 12).float()
    assert renyi_mutual_information(h, z) > renyi_mutual_information(h, h) + 0.2


@pytest.mark.parametrize("measure", [linear_cka, renyi_mutual_information])
def test_autocast_changes_nothing(measure):
    x, y = noise(40, 8), noise(40, 8, seed=1)
    expected = measure(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(measure(x.requires_grad_(), y), expected)


def test_feature_std_tells_even_spread_from_collapse():
    assert feature_std(noise(3000, 64)).item() == pytest.approx(1, abs=0.01)
    one_direction = noise(3000, 1) @ torch.eye(64)[:1]
    assert feature_std(one_direction).item() == pytest.approx(1 / 8, abs=0.01)


# The protocol.


def features(vectors: torch.Tensor, labels: torch.Tensor | None = None) -> Features:
    return Features(vectors, labels, torch.arange(len(vectors)))


def found(tap: str, test: Features) -> dict:
    return {value.key: value for value in geometry(tap, test, test, seed=0)}


def test_the_protocol_measures_the_test_features_with_intervals():
    x, labels = noise(200, 12) + 1, torch.arange(200) % 4
    x[torch.arange(200), labels] += 3
    train = features(noise(9, 12, seed=5))
    values = {value.key: value for value in geometry("g1", train, features(x, labels), seed=0)}
    expected = {
        "rank/g1": effective_rank(x),
        "uniformity/g1": uniformity(x),
        "std/g1": feature_std(x),
        "separation/g1": class_separation(x, labels),
    }
    assert list(values) == list(expected)
    for name, value in values.items():
        assert value.value == pytest.approx(expected[name].item())
        low, high = present(value.interval)
        assert low < value.value < high
        assert value.n == 200
    assert values["rank/g1"].settings == {"most": 12}
    assert values["separation/g1"].chance == 3 / 199
    spectrum = values["rank/g1"].arrays["spectrum"]
    np.testing.assert_allclose(spectrum, singular_values(x).numpy())


def test_large_tables_are_measured_on_rows_of_all_parts(monkeypatch):
    """The first rows of a sorted test set would be of a few classes."""
    monkeypatch.setattr("headwise.evaluation.protocols.geometry._ROWS", 100)
    monkeypatch.setattr("headwise.evaluation.protocols.geometry._PAIR_ROWS", 50)
    labels = torch.arange(1000) // 100
    x = F.one_hot(labels).float()
    values = found("h", features(x, labels))
    assert [values[f"{name}/h"].n for name in ("rank", "uniformity", "separation")] == [
        100,
        50,
        100,
    ]
    assert values["rank/h"].value == pytest.approx(10, abs=0.5)
    assert values["separation/h"].chance == 9 / 99


@pytest.mark.parametrize("name", ["rank", "uniformity", "std", "separation"])
def test_intervals_hold_the_mean_over_draws_about_as_often_as_they_say(name):
    labels = torch.arange(100) % 2
    draws = []
    for seed in range(60):
        x = noise(100, 5, seed=seed) * torch.tensor([3.0, 2, 1, 1, 0.5]) + 0.3 * labels[:, None]
        draws.append(found("h", features(x, labels))[f"{name}/h"])
    truth = sum(value.value for value in draws) / len(draws)
    holds = sum(value.interval[0] <= truth <= value.interval[1] for value in draws) / len(draws)
    assert holds >= 0.85


def test_without_labels_there_is_no_separation_and_few_rows_have_no_interval():
    values = found("h", features(noise(12, 4)))
    assert list(values) == ["rank/h", "uniformity/h", "std/h"]
    assert all(value.interval is None for value in values.values())


def test_features_that_cannot_be_measured_are_errors():
    x = noise(30, 4)
    with pytest.raises(UserError, match="separation/z needs images of at least 2 classes; got 1"):
        found("z", features(x, torch.zeros(30, dtype=torch.int64)))
    x[3, 2] = torch.nan
    with pytest.raises(UserError, match="geometry's z features must be finite; got NaN"):
        found("z", features(x))


def trained(
    tiny, tmp_path, pixels: torch.Tensor, tables: dict, augment: ResolvedAugment
) -> ExtractedRun:
    images = resident_images(pixels, None, (), [str(i) for i in range(len(pixels))])
    return ExtractedRun(
        config=resolved_config(images, encoder=tiny.encoder),
        model=ContrastiveModel(nn.Flatten(), Head([nn.Identity()])).eval(),
        images=Splits(images, None),
        extraction=ExtractConfig(augment=augment, batch_size=16),
        tables=tables,
        folder=tmp_path,
    )


STILL = resolved_augment(
    size=8,
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    strength=0.5,
    grey=0.0,
    blur=0.0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def test_what_h_shares_with_planted_taps():
    h = noise(3000, 6)
    rotation = torch.linalg.qr(noise(6, 6, seed=1)).Q
    tables = {
        tap: SplitFeatures(features(x), features(x))
        for tap, x in {"h": h, "z": h @ rotation, "pixels": noise(3000, 6, seed=2)}.items()
    }
    values = {value.key: value for value in between_taps(tables, seed=0)}
    assert list(values) == [  # pixels are no tap of the model
        *("renyi/h-h", "renyi_shuffled/h-h"),
        *("cka/h-z", "renyi/h-z", "renyi_shuffled/h-z"),
    ]
    assert values["cka/h-z"].value == pytest.approx(1, abs=1e-6)
    assert present(values["cka/h-z"].chance) < 0.02
    same, with_z = values["renyi/h-h"], values["renyi/h-z"]
    assert with_z.value == pytest.approx(same.value, rel=1e-4)
    assert values["renyi_shuffled/h-z"].value < 0.05 < 0.5 < same.value
    del tables["h"]
    assert list(between_taps(tables, seed=0)) == []


def test_cka_between_runs_needs_the_same_images():
    a, b = features(noise(50, 4)), features(noise(50, 3, seed=1))
    assert cka_between(a, b) == pytest.approx(linear_cka(a.vectors, b.vectors).item())
    with pytest.raises(UserError, match="features of the same images; got 50 and 49"):
        cka_between(a, Features(b.vectors[1:], None, b.index[1:]))


def halves(n: int) -> torch.Tensor:
    """Images that are white on the left and black on the right: mirrored, their opposite."""
    pixels = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    pixels[..., :4] = 255
    return pixels


def test_alignment_of_views_whose_distance_is_known(tiny, tmp_path):
    flips = dataclasses.replace(STILL, flip=0.5)
    empty = SplitFeatures(features(noise(2, 2)), features(noise(2, 2)))
    tables = {"h": empty, "z": empty, "pixels": empty}
    for augment, expected in (STILL, {0.0}), (flips, {0.0, 4.0}):
        what = trained(tiny, tmp_path, halves(40), tables, augment)
        values = {value.key: value for value in between_twins(what, seed=0)}
        assert list(values) == ["alignment/h", "alignment/z"]
        for value in values.values():
            assert value.n == len(present(value.each)) == 39  # three batches of 13
            assert {round(each, 4) for each in present(value.each).tolist()} == expected
    assert 1 < values["alignment/h"].value < 3


def test_alignment_is_given_for_the_same_images_whatever_the_seed(tiny, tmp_path):
    """Image i is grey in part i, so that the distance tells which image it is."""
    pixels = halves(16)
    pixels[8:] = 128  # looks the same mirrored
    flips = dataclasses.replace(STILL, flip=0.5)
    empty = SplitFeatures(features(noise(2, 2)), features(noise(2, 2)))
    what = trained(tiny, tmp_path, pixels, {"h": empty}, flips)
    moved = torch.zeros(16, dtype=torch.bool)
    for seed in range(12):
        (value,) = between_twins(what, seed=seed)
        moved |= present(value.each) > 0.1
    assert moved.tolist() == [True] * 8 + [False] * 8
