"""The operations for studies against NumPy, SciPy and torchvision, image by image."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy import ndimage
from scipy.stats import kstest

from headwise.augment import study_ops
from headwise.augment.study_ops import Cutout, Noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=generator(seed))


def test_rotation_is_numpys():
    images, turns = floats(9, 7, 7), torch.arange(9) % 4
    expected = [
        np.rot90(image.numpy(), turn, axes=(1, 2))
        for image, turn in zip(images, turns.tolist(), strict=True)
    ]
    assert np.array_equal(study_ops.apply_rotation(images, turns), np.stack(expected))


def test_turns_are_even():
    counts = study_ops.sample_rotation(8000, generator()).bincount(minlength=4)
    assert len(counts) == 4
    assert (counts - 2000).abs().max() < 200  # five standard deviations


def test_noise_is_torchvisions_on_the_chosen_rows():
    images, sigma = floats(3, 8, 9), torch.tensor([0.1, 0.5, 0.3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = torch.stack(
            [
                tv.gaussian_noise(image, sigma=s)
                for image, s in zip(images, sigma.tolist(), strict=True)
            ]
        )
        torch.manual_seed(5)
        grain = torch.stack([torch.randn(3, 8, 9) for _ in images])
    expected[1] = images[1]
    noise = Noise(sigma, grain, torch.tensor([True, False, True]))
    torch.testing.assert_close(study_ops.apply_noise(images, noise), expected)


def test_noise_is_normal_and_its_strength_uniform():
    noise = study_ops.sample_noise(
        1000, generator(1), probability=0.3, sigma=(0.1, 0.5), size=(2, 3)
    )
    assert noise.grain.shape == (1000, 3, 2, 3)
    assert kstest(noise.grain.flatten(), "norm").pvalue > 0.01
    assert kstest((noise.sigma - 0.1) / 0.4, "uniform").pvalue > 0.01
    assert 240 < noise.applied.sum() < 360


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (1, 1)], ids=str)
def test_sobel_is_scipys_on_the_chosen_rows(shape):
    images, applied = floats(4, *shape), torch.tensor([1, 1, 0, 1]).bool()
    expected = images.numpy().copy()
    for row, channel in np.ndindex(4, 3):
        if applied[row]:
            plane = expected[row, channel]
            across, down = (ndimage.sobel(plane, axis=axis, mode="reflect") for axis in (1, 0))
            expected[row, channel] = np.hypot(across, down).clip(0, 4) / 4
    found = study_ops.apply_sobel(images, applied)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_step_from_black_to_white_has_a_sobel_of_1():
    image = torch.zeros(1, 3, 4, 6)
    image[..., 3:] = 1
    line = study_ops.apply_sobel(image, torch.tensor([True]))[0, 0, 2]
    assert line.tolist() == [0, 0, 1, 1, 0, 0]


def test_cutout_is_torchvisions_erase_cut_at_the_edge():
    images = floats(4, 8, 8)
    # (3, 5), the corner, beyond nothing, not applied; a quarter of the side or all of it
    centre = torch.tensor([[3 / 8, 5 / 8], [0.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    side = torch.tensor([0.25, 0.5, 1.0, 0.5])
    cutout = Cutout(centre, side, torch.tensor([1, 1, 1, 0]).bool())
    boxes = [(2, 4, 2, 2), (0, 0, 2, 2), (0, 0, 8, 8)]
    expected = [
        tv.erase(image, *box, v=torch.full((3, 1, 1), 0.25))
        for image, box in zip(images, boxes, strict=False)
    ]
    found = study_ops.apply_cutout(images, cutout, fill=0.25)
    assert torch.equal(found, torch.stack([*expected, images[3]]))


def test_cutouts_lie_anywhere():
    cutout = study_ops.sample_cutout(1000, generator(2), probability=1.0, side=(0.2, 0.4))
    for axis in range(2):
        assert kstest(cutout.centre[:, axis], "uniform").pvalue > 0.01
    assert kstest((cutout.side - 0.2) / 0.2, "uniform").pvalue > 0.01
    assert cutout.applied.all()


def test_images_given_stay_as_they_were():
    images = floats(6, 8, 8)
    before, every = images.clone(), torch.ones(6, dtype=torch.bool)
    study_ops.apply_rotation(images, torch.arange(6) % 4)
    noise = study_ops.sample_noise(6, generator(), probability=1.0, sigma=(1.0, 1.0), size=(8, 8))
    study_ops.apply_noise(images, noise)
    study_ops.apply_sobel(images, every)
    hole = study_ops.sample_cutout(6, generator(), probability=1.0, side=(0.5, 0.5))
    study_ops.apply_cutout(images, hole)
    assert torch.equal(images, before)
