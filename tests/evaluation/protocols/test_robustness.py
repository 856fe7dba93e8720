"""Robustness of encoders built by hand: to what they cannot see, and to what they live by."""

import pytest
import torch
import torch.nn.functional as F
from narrow import present
from planted_run import in_memory, keeping, planted_run
from torch import nn

from headwise.errors import UserError
from headwise.evaluation.protocols.robustness import RobustnessConfig, robustness
from headwise.features.extract import extract

SIDE = 12
# Equally light, so that nothing is left of them in a grey image.
COLOURS = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.404, 0.2], [0.2, 0.2, 0.8]])


class MeanColour(nn.Module):
    """Blind to where pixels are. The fourth number is the same for all images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x.mean((2, 3)), (0, 1), value=0.5)


def coloured(n: int, seed: int):
    labels = torch.arange(n) % 3
    grain = 0.04 * torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return in_memory(COLOURS[labels][:, :, None, None] + grain, labels)


def measured(trained, seed=0, **settings):
    config = RobustnessConfig(**settings)
    return {value.key: value for value in robustness(trained, config, seed=seed)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return planted_run(
        tmp_path_factory.mktemp("run"),
        coloured(120, 0),
        coloured(90, 1),
        MeanColour(),
        keeping(4, 3),
        SIDE,
    )


@pytest.fixture(scope="module")
def found(trained):
    return measured(trained)


def test_every_augmentation_at_every_strength_at_both_taps(found):
    graded = ("crop", "colour", "grey", "blur", "noise", "sobel", "cutout")
    names = [f"{name}_{strength}" for name in graded for strength in ("0.25", "0.5", "1")]
    names += ["flip", "rotation_90", "rotation_180", "rotation_270"]
    expected = {f"invariance_{name}/{tap}" for name in names for tap in "hz"}
    expected |= {f"robustness_{name}/{tap}" for name in ["clean", *names] for tap in "hz"}
    assert set(found) == expected
    assert all(value.n == len(present(value.each)) == 90 for value in found.values())


@pytest.mark.parametrize("name", ["flip", "rotation_90", "rotation_180", "rotation_270"])
def test_an_encoder_that_cannot_see_the_augmentation_is_invariant(found, name):
    assert found[f"invariance_{name}/h"].value == pytest.approx(1, abs=1e-6)
    assert found[f"robustness_{name}/h"].value == found["robustness_clean/h"].value == 1


def test_what_the_classes_hang_on_is_lost_with_it(found):
    assert found["robustness_grey_1/h"].value == pytest.approx(1 / 3, abs=0.12)
    assert found["robustness_sobel_1/h"].value < 0.5
    assert found["robustness_blur_1/h"].value == found["robustness_crop_1/h"].value == 1
    clean = found["robustness_clean/h"]
    assert clean.chance == pytest.approx(1 / 3)
    assert clean.settings["penalty"] > 0


@pytest.mark.parametrize("kind", ["crop", "colour", "grey", "noise", "sobel", "cutout"])
def test_the_stronger_the_further(found, kind):
    weak, middle, strong = (
        found[f"invariance_{kind}_{strength}/h"].value for strength in ("0.25", "0.5", "1")
    )
    assert 1 > weak > middle > strong


def test_a_head_that_keeps_nothing_of_the_image_is_invariant_at_chance(found):
    for name in ("crop_1", "colour_1", "sobel_1", "flip"):
        value = found[f"invariance_{name}/z"]
        assert value.value == value.chance == pytest.approx(1)
        assert found[f"robustness_{name}/z"].value == pytest.approx(1 / 3)


def test_the_chance_level_of_invariance_is_the_cosine_of_different_images(trained, found):
    model, test = trained.model, trained.images.test
    h = extract(model.encoder, None, test, ("h",), trained.extraction)["h"].vectors.double()
    cosines = F.cosine_similarity(h[:, None], h[None], dim=2)
    expected = cosines[~torch.eye(len(h), dtype=torch.bool)].mean().item()
    assert found["invariance_crop_1/h"].chance == pytest.approx(expected)


def test_each_is_in_the_order_of_the_test_images(trained, found):
    """The grey of every image is seen as one class: right where the label is that class."""
    right = present(found["robustness_grey_1/h"].each)
    labels = trained.images.test.labels
    by_class = [right[labels == label].mean().item() for label in range(3)]
    assert sorted(by_class)[:2] == [pytest.approx(0, abs=0.2)] * 2
    assert max(by_class) > 0.8


def test_fewer_images_and_strengths(trained):
    found = measured(trained, train=30, test=20, strengths=(0.1,))
    assert {value.n for value in found.values()} == {20}
    assert "robustness_crop_0.1/h" in found
    again = measured(trained, train=30, test=20, strengths=(0.1,))
    assert all(torch.equal(present(found[name].each), present(again[name].each)) for name in found)


def test_images_without_labels(tmp_path):
    bare = in_memory(torch.rand(20, 3, SIDE, SIDE))
    for test in (bare, None):
        trained = planted_run(tmp_path, bare, test, MeanColour(), keeping(4, 0), SIDE)
        with pytest.raises(UserError, match="robustness needs labels on training and test images"):
            measured(trained)


@pytest.mark.parametrize(
    "bad",
    [{"strengths": ()}, {"strengths": (0.0,)}, {"strengths": (0.5, 1.1)}, {"test": 0}],
    ids=str,
)
def test_settings_that_cannot_be(bad):
    with pytest.raises(UserError, match=f"robustness.{next(iter(bad))} must be"):
        RobustnessConfig(**bad)
