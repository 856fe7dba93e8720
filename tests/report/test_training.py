"""Runs that did not train long enough are called that."""

import math

import pytest

from headwise.report.reading.training import too_short

FLAT = math.log(511)


def logged(losses: list[float], steps: int) -> list[dict[str, float]]:
    """Records at equal distances, of batches of 256 images."""
    at = [steps * i // len(losses) for i in range(1, len(losses) + 1)]
    pairs = zip(at, losses, strict=True)
    return [{"step": step, "images_seen": 256 * step, "loss": loss} for step, loss in pairs]


@pytest.mark.parametrize(
    ("losses", "steps", "said"),
    [
        ([6.2, 3.0], 24, "24 steps: too short to judge a head."),
        ([6.2, 3.0], 499, "499 steps: too short"),
        ([6.2, *[5.0] * 30], 500, ""),
        (
            [5.5, *[5.45] * 30],
            4000,
            "4,000 steps the loss has not left its start (5.45 after 5.50)",
        ),
        ([9.0, *[FLAT] * 30], 4000, "that of equal projections (6.24, log(2n − 1) is 6.24)"),
        ([0.69, *[0.685] * 30], 4000, "its start (0.69 after 0.69)"),  # the affinity loss
        ([math.nan], 4000, ""),
        ([], 0, ""),
    ],
)
def test_what_is_too_short(losses: list[float], steps: int, said: str) -> None:
    found = too_short(logged(losses, steps))
    assert said in found
    assert bool(said) == bool(found)


def test_semi_hard_negatives_keep_the_loss_high() -> None:
    records = logged([0.48, *[0.48] * 18], 4000)
    for accuracy, said in ((0.3, True), (0.8, False)):
        learning = [{**record, "contrastive_accuracy": accuracy} for record in records]
        assert bool(too_short(learning)) == said


def test_the_end_is_no_single_record() -> None:
    """One high record at the end does not undo what was learned."""
    assert too_short(logged([6.2, *[4.0] * 18, 6.2], 4000)) == ""
