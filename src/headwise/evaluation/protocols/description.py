"""What a protocol says of itself: what it needs, and what the report needs of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headwise.runs.results import Result

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
    "per_class": "mean per class",
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
