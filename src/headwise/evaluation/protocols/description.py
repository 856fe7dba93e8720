"""What a protocol is: how it measures, and what it says of itself to the report."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from headwise.data import Splits
from headwise.evaluation.extracted import Extracted, ExtractedRun
from headwise.features.extract import Features
from headwise.runs.results import Result, Settings, Value

PageSection = Literal[
    "taps",
    "transformations",
    "factors",
    "geometry",
    "pairs",
    "labels",
    "transfer",
    "leakage",
    "robustness",
    "fusion",
    "others",
]
"""The sections of the page, in their order."""

METRIC_LABELS = {
    "top5": "top 5",
    "per_class": "balanced accuracy",
    "nmi": "NMI",
    "ari": "ARI",
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """Stands in the protocol's own file."""

    title: str
    """A few words, as a heading."""
    definition: str
    """One or two sentences: what is measured, and how to read it."""
    labels: Mapping[str, str]
    """In words, every measure that the protocol yields; `{variant}` stands for its variant."""
    section: PageSection
    """Where its results stand on the page."""
    elsewhere: Mapping[str, PageSection] = field(default_factory=dict)
    """Measures that stand in another section."""
    source: str = ""
    """Where the protocol is from, for example `arXiv 2002.05709, B.5`."""
    needs: Literal["labels", "factors", "targets", "images"] = "labels"
    """What the images must have. factors: known nuisance factors. targets: nothing, but
    `--transfer.targets` must name other images. images: nothing."""
    draws: bool = True
    """Whether anything depends on the seed. If not, one seed is enough."""

    def label(self, result: Result) -> str:
        """The measure of a result of this protocol, in words."""
        words = self.labels[result.measure].format(variant=result.variant.replace("_", " "))
        return f"{words}, {METRIC_LABELS[result.metric]}" if result.metric else words

    def section_of(self, result: Result) -> PageSection:
        return self.elsewhere.get(result.measure, self.section)


class TapFeatures(NamedTuple):
    """What a protocol on features sees: one tap of the training and of the test images."""

    tap: str
    """Or a baseline: `pixels`, `untrained`, `start`."""
    train: Features
    test: Features
    images: Splits | None
    """None where only features are known."""
    seed: int

    @property
    def features(self) -> tuple[str, Features, Features]:
        return self.tap, self.train, self.test

    @property
    def shown(self) -> Splits:
        """The images, which a protocol may need."""
        assert self.images is not None, "it was asked for without images"
        return self.images

    @property
    def num_classes(self) -> int:
        """One more than the largest training label."""
        assert self.train.labels is not None, "labels were checked"
        return int(self.train.labels.max()) + 1


@dataclass(frozen=True)
class Protocol:
    """One way to judge a representation: on the features of every tap, on the model, or on both."""

    description: Description
    on_features: Callable[[TapFeatures], Iterator[Value]] | None = None
    """Called for every tap and baseline."""
    on_taps: Callable[..., Iterator[Value]] | None = None
    """Called once, as `on_taps(tables, seed=seed)`, for what it measures between taps."""
    on_model: Callable[..., Iterator[Value]] | None = None
    """Called once, as `on_model(trained, seed=seed)`."""
    asked: Settings = field(default_factory=dict)
    """The settings that it was asked for, without those that only say what is measured. Results
    keep them as `config`: two with others are not compared."""

    def at_tap(self, features: TapFeatures) -> Iterator[Value]:
        """The values of one tap, of a protocol on features."""
        assert self.on_features is not None, f"{self.description.title} needs more than features"
        return self.on_features(features)

    def measure(self, extracted: Extracted, seed: int) -> Iterator[Value]:
        """All values for one seed; of features alone, those that need no model."""
        tables, images = extracted.tables, extracted.images
        trained = extracted if isinstance(extracted, ExtractedRun) else None
        if self.on_features is not None:
            by_tap: dict[str, list[Value]] = {}
            z_is_h = trained is not None and not trained.model.head.layers
            for tap, (train, test) in tables.items():
                if tap == "z" and "h" in by_tap and z_is_h:
                    by_tap[tap] = [replace(value, where=tap) for value in by_tap["h"]]
                else:
                    features = TapFeatures(tap, train, test, images, seed)
                    by_tap[tap] = list(self.on_features(features))
                yield from by_tap[tap]
        if self.on_taps is not None:
            yield from self.on_taps(tables, seed=seed)
        if self.on_model is not None and trained is not None:
            yield from self.on_model(trained, seed=seed)
