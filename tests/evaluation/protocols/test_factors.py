"""Factors that are planted in features, and how well they are read."""

import pytest
import torch
from narrow import present
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from headwise.data.images import Splits, resident_images
from headwise.errors import UserError
from headwise.evaluation.protocols.factors import factors, ridge_readings
from headwise.features.extract import Features


def images(n: int, seed: int, **more: torch.Tensor):
    """Images whose pixels do not matter, with an angle, a level, a kind and what is constant."""
    draw = torch.Generator().manual_seed(seed)
    turn = 6.28 * torch.rand(n, generator=draw)
    planted = {
        "hue_sine": turn.sin(),
        "hue_cosine": turn.cos(),
        "level": torch.rand(n, generator=draw),
        "still": torch.ones(n),
        "kind": torch.randint(3, (n,), generator=draw),
    }
    pixels = torch.zeros(n, 3, 2, 2, dtype=torch.uint8)
    return resident_images(pixels, None, (), [""] * n, factors=planted | more)


def features(of, *names: str) -> Features:
    """The factors of those names as features, beside noise."""
    n = len(of)
    noise = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    known = of.factors
    columns = [known[name].float() for name in names if name != "kind"]
    if "kind" in names:
        columns += list(torch.eye(3)[known["kind"]].T)
    return Features(torch.column_stack([*columns, noise]), None, torch.arange(n))


def read(train, test, *names: str, tap: str = "h"):
    found = factors(
        tap, Splits(train, test), features(train, *names), features(test, *names), seed=0
    )
    return {value.key: value for value in found}


@pytest.fixture(scope="module")
def splits():
    return images(600, 1), images(300, 2)


def test_what_is_in_the_features_reads_1_and_what_is_not_reads_0(splits):
    all_in = read(*splits, "hue_sine", "hue_cosine", "level", "still", "kind")
    for name in ("hue", "level", "kind"):
        assert all_in[f"factor_{name}/h"].value > 0.99, name
    removed = read(*splits, "level", tap="z")
    assert removed["factor_level/z"].value > 0.99
    for name in ("hue", "kind"):
        assert removed[f"factor_{name}/z"].value < 0.1, name
    assert all_in["factor_still/h"].value == removed["factor_still/z"].value == 0


def test_the_mean_and_its_parts(splits):
    found = read(*splits, "level")
    mean = found.pop("factors/h")
    parts = {name.removeprefix("factor_").removesuffix("/h"): v for name, v in found.items()}
    assert set(parts) == {"hue", "level", "still", "kind"}
    assert mean.settings["scores"] == {name: value.value for name, value in parts.items()}
    assert mean.value == pytest.approx(sum(v.value for v in parts.values()) / 4)
    for value in (mean, *parts.values()):
        low, high = present(value.interval)
        assert low <= value.value <= high
        assert value.n == 300
        assert value.chance == 0


def test_rows_that_could_not_be_read_are_left_out_of_the_factors(splits):
    train, test = splits
    some = torch.arange(0, 300, 2)
    vectors = features(test, "level").vectors[some]
    found = factors(
        "h", Splits(train, test), features(train, "level"), Features(vectors, None, some), seed=0
    )
    assert {v.key: v.value for v in found}["factor_level/h"] > 0.99


def noisy(n: int, seed: int):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=draw)
    return x, {"y": x[:, 0] + torch.randn(n, generator=draw)}


def test_r2_is_scikit_learns_but_for_the_mean_which_is_the_training_rows():
    x, y = noisy(400, 0)
    x_test, truth = noisy(200, 1)
    reading = ridge_readings(x, y, x_test, truth)["y"]
    ours = 1 - reading.error.sum() / reading.constant.sum()
    guess = RidgeCV(torch.logspace(-2, 5, 15).numpy()).fit(x, y["y"]).predict(x_test)
    assert ours == pytest.approx(r2_score(truth["y"], guess), abs=0.01)
    assert 0.4 < ours < 0.6  # half of the variance is noise


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    from headwise.evaluation.protocols.factors import reading_values

    x, y = noisy(3000, 0)
    covered = 0
    for seed in range(1, 41):
        x_test, truth = noisy(150, seed)
        readings = ridge_readings(x, y, x_test, truth)
        (value,) = reading_values(readings, protocol="p", measure="v", where="h")
        low, high = present(value.interval)
        covered += low <= 0.5 <= high
    assert covered >= 34  # of 40 at 95 %; 33 or fewer: once in 2,500


def test_images_without_factors():
    bare = resident_images(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), None, (), [""] * 4)
    table = Features(torch.zeros(4, 2), None, torch.arange(4))
    with pytest.raises(UserError, match="nuisance factors are known; got images without any"):
        list(factors("h", Splits(bare, bare), table, table, seed=0))


def test_factors_of_one_split_only(splits):
    other = images(50, 3, size=torch.rand(50))
    with pytest.raises(UserError, match="same factors on both splits; got size"):
        read(splits[0], other, "level")


def test_features_that_are_not_finite(splits):
    train, test = splits
    bad = features(test, "level")
    bad.vectors[3, 1] = torch.nan
    with pytest.raises(UserError, match="test features must be finite; got NaN"):
        list(factors("h", Splits(train, test), features(train, "level"), bad, seed=0))
