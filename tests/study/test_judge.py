"""What a study says of claims, on planted answers."""

import zlib

import numpy as np
import pytest

from headwise.study.answers import BySeed
from headwise.study.design import Claim, Contrast, Group
from headwise.study.judge import judge

SEEDS, IMAGES = 5, 2000


class Planted:
    """Stands for the finished runs of a study: arms with these levels and shares of right answers.
    All arms answer with the same draws by image and seed, so that differences are clear."""

    def __init__(self, shares: dict[str, tuple[dict[str, str], float]], seeds: int = SEEDS) -> None:
        self.arms = {arm: levels for arm, (levels, _) in shares.items()}
        self.units = {"linear/h": "share", "rank/h": "rank"}
        generator = np.random.default_rng(0)
        self._draws = generator.random((seeds, IMAGES))
        self._noise = generator.random((seeds, IMAGES))
        self._shares = {arm: share for arm, (_, share) in shares.items()}

    def of(self, arm: str, measure: str) -> BySeed:
        if measure == "rank/h":
            return {
                seed: np.full(2, 10 * self._shares[arm] + 0.01 * seed)
                for seed in range(len(self._draws))
            }
        right = self._draws < self._shares[arm]
        # A twentieth of the answers have draws of the arm's own.
        own = np.random.default_rng(zlib.crc32(arm.encode())).random(right.shape)
        right = np.where(self._noise < 0.05, own < self._shares[arm], right)
        return {seed: row.astype(float) for seed, row in enumerate(right)}


def claim(*contrasts: Contrast, margin: float = 0.03) -> Claim:
    return Claim(name="c", says="s", source="p", contrasts=contrasts, margin=margin)


def heads(**shares: float) -> Planted:
    return Planted({name: ({"head": name}, share) for name, share in shares.items()})


def over(a: str, b: str, expects: str = "above") -> Contrast:
    return Contrast(
        name=f"{a} − {b}",
        plus=Group(levels={"head": a}),
        minus=Group(levels={"head": b}),
        expects=expects,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("mlp", "expects", "answer"),
    [
        (0.60, "above", "supported"),
        (0.40, "above", "contradicted"),
        (0.40, "below", "supported"),
        (0.505, "above", "equivalent"),
        (0.505, "alike", "supported"),
        (0.60, "alike", "contradicted"),
    ],
)
def test_answers_of_one_contrast(mlp: float, expects: str, answer: str) -> None:
    found = judge(claim(over("mlp", "linear", expects)), heads(linear=0.5, mlp=mlp))
    (tested,) = found.tested
    assert found.answer == tested.answer == answer
    assert tested.value == pytest.approx(mlp - 0.5, abs=0.02)
    assert tested.interval is not None
    assert tested.interval[0] < mlp - 0.5 < tested.interval[1]
    assert found.words.startswith(f"mlp − linear {'+' if mlp > 0.5 else '−'}")


def test_all_contrasts_must_be_as_the_claim_says() -> None:
    numbers = heads(none=0.4, linear=0.5, mlp=0.6)
    assert judge(claim(over("mlp", "linear"), over("linear", "none")), numbers).answer == (
        "supported"
    )
    mixed = judge(claim(over("mlp", "linear"), over("none", "linear")), numbers)
    assert mixed.answer == "contradicted"
    assert [one.answer for one in mixed.tested] == ["supported", "contradicted"]


def test_with_few_seeds_there_is_no_verdict() -> None:
    numbers = Planted({"a": ({"head": "a"}, 0.2), "b": ({"head": "b"}, 0.9)}, seeds=3)
    found = judge(claim(over("b", "a")), numbers)
    assert found.answer == "cannot tell"
    assert found.words.endswith(": 3 of 5 seeds: no verdict.")
    assert found.tested[0].p_value is None


def test_what_is_missing_is_said() -> None:
    found = judge(claim(over("mlp", "none")), heads(mlp=0.5))
    assert found.answer == "cannot tell"
    assert found.words == "mlp − none: it has no arms with these levels."


def grid(slope: float, extra: float = 0.0) -> Planted:
    """Batch sizes 64 to 256 at two lengths; `extra` slope at the longer one."""
    return Planted(
        {
            f"{epochs} {batch}": (
                {"epochs": epochs, "batch": str(batch)},
                0.5 + (slope + extra * (epochs == "long")) * (np.log2(batch) - 7),
            )
            for epochs in ("short", "long")
            for batch in (64, 128, 256)
        }
    )


def test_a_slope_is_the_change_for_each_doubling() -> None:
    trend = Contrast(name="trend", plus=Group(along="batch"))
    found = judge(claim(trend), grid(0.05))
    assert found.answer == "supported"
    assert found.tested[0].unit == "points per doubling"
    assert found.tested[0].value == pytest.approx(0.05, abs=0.01)
    assert judge(claim(trend, margin=0.02), grid(0.0)).answer == "equivalent"
    assert judge(claim(trend), grid(-0.05)).answer == "contradicted"


def test_an_interaction_is_a_slope_less_a_slope() -> None:
    def at(epochs: str) -> Group:
        return Group(levels={"epochs": epochs}, along="batch")

    less = Contrast(name="long − short", plus=at("long"), minus=at("short"), expects="below")
    found = judge(claim(less), grid(0.08, extra=-0.06))
    assert found.answer == "supported"
    assert found.tested[0].value == pytest.approx(-0.06, abs=0.015)
    # The slopes alone are steep; they are equal, so nothing is said of their difference.
    assert judge(claim(less, margin=0.02), grid(0.08)).answer == "equivalent"


def test_a_number_of_each_seed_is_tested_over_seeds() -> None:
    rank = Contrast(
        name="rank",
        plus=Group(levels={"head": "mlp"}, measure="rank/h"),
        minus=Group(levels={"head": "linear"}, measure="rank/h"),
    )
    found = judge(claim(rank), heads(linear=0.5, mlp=0.6))
    assert found.answer == "supported"
    assert found.tested[0].value == pytest.approx(1.0)
    assert found.tested[0].unit == "rank"


def test_equal_arms_are_rarely_told_apart() -> None:
    """Some contrast of six is called different in about 5 % of studies, and no more."""
    generator, wrong, studies = np.random.default_rng(1), 0, 50
    for _ in range(studies):
        numbers = heads(**dict.fromkeys("abcd", 0.5))
        answers = {
            arm: 0.5 + 0.02 * generator.standard_normal((SEEDS, 1)) > generator.random((SEEDS, 300))
            for arm in "abcd"
        }
        numbers.of = lambda arm, measure, known=answers: {  # type: ignore[method-assign]
            seed: row.astype(float) for seed, row in enumerate(known[arm])
        }
        pairs = [over(a, b) for i, a in enumerate("abcd") for b in "abcd"[i + 1 :]]
        found = judge(claim(*pairs), numbers)
        wrong += any(one.verdict.startswith("shown") for one in found.tested)
    assert wrong / studies < 0.12
