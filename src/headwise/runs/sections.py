"""Results on one data set, and which images those are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from headwise.runs.results import Result


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which images numbers belong to: those that they were measured on, and those that probes
    learned from."""

    spec: str
    """What `--data` said."""
    fingerprint: str
    """Of the test images; of the training images where there are no others."""
    train_fingerprint: str = ""
    """Of the training images; empty where it is not known."""
    classes: tuple[str, ...] = ()
    """Their names, in the order of the labels."""
    train_images: int | None = None
    test_images: int | None = None
    """Counts; None where it is not known."""
    copies: int = 0
    """Test images that are also among the training images, pixel by pixel; only counted for images
    in memory."""
    seen_images: int | None = None
    """Test images that were among the training images of pretraining; None where it is not known.
    """
    limit: int | None = None
    """`--limit`; None for all images."""
    test_on: Literal["test", "validation"] = "test"
    """Whether the test images are validation images, held out of the training images."""
    split: str = ""
    """How training and test images were told apart; empty where it is not known."""

    @property
    def key(self) -> str:
        """Equal for the same images. Numbers of different images never meet in a section."""
        return "-".join(filter(None, (self.fingerprint[:12], self.train_fingerprint[:12])))

    @property
    def words(self) -> str:
        """`builtin:shapes (300 test images, 300 training images, --limit 300)`."""
        counts = {self.test_on: self.test_images, "training": self.train_images}
        facts = [f"{count:,} {kind} images" for kind, count in counts.items() if count]
        facts += (
            [f"{self.copies:,} copies of training images in the test set"] if self.copies else []
        )
        facts += [f"--limit {self.limit}"] if self.limit else []
        return f"{self.spec or 'unnamed images'} ({', '.join(facts)})" if facts else self.spec


@dataclass(frozen=True, kw_only=True)
class Section:
    """All results on one data set."""

    data: DataIdentity
    results: dict[str, Result]
    """By `Result.key`, in the order in which they were first measured."""

    def updated(self, data: DataIdentity, results: Mapping[str, Result]) -> "Section":
        """With newer results of the same images; what `data` leaves open stays. The difference to
        another run goes with the value that it was of."""
        merged = replace(
            data,
            classes=data.classes or self.data.classes,
            train_images=data.train_images or self.data.train_images,
            test_images=data.test_images or self.data.test_images,
            split=data.split or self.data.split,
        )
        kept = {
            key: result
            for key, result in self.results.items()
            if result.against is None or key.removeprefix("difference/") not in results
        }
        return Section(data=merged, results={**kept, **results})
