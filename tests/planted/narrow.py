"""What a test knows to be there: asserted, so that the type checker knows it too."""

from typing import TypeVar

from torch import Tensor

from headwise.data import Images, ResidentImages

T = TypeVar("T")


def present(value: T | None) -> T:
    assert value is not None
    return value


def gradient_of(leaf: Tensor) -> Tensor:
    return present(leaf.grad)


def labels_of(images: Images | None) -> Tensor:
    return present(present(images).labels)


def pixels_of(images: Images | None) -> Tensor:
    assert isinstance(images, ResidentImages)
    return images.pixels
