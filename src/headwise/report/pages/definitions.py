"""The definitions of protocols on a page: what each protocol says of itself, and its settings."""

from collections.abc import Iterable
from dataclasses import dataclass

from headwise.evaluation.protocols.description import Description
from headwise.report.tables.numbers import description_of
from headwise.report.words import settings_in_words
from headwise.runs.results import Result


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One entry of the page's definitions."""

    anchor: str
    title: str
    text: str
    source: str = ""
    """The papers and the places in them."""
    here: str = ""
    """The settings of this run."""


def definitions_of(results: Iterable[Result]) -> list[Definition]:
    """One for each protocol that measured something, with the settings of its result on h."""
    by_protocol: dict[str, list[Result]] = {}
    for result in results:
        by_protocol.setdefault(result.protocol, []).append(result)
    return [
        definition(name, description_of(group[0]), _here(name, group))
        for name, group in by_protocol.items()
    ]


def definition(protocol: str, description: Description, here: str = "") -> Definition:
    """A protocol's own words as an entry."""
    return Definition(
        anchor=protocol.replace("_", "-"),
        title=description.title,
        text=description.definition,
        source=description.source,
        here=here,
    )


def _here(protocol: str, results: Iterable[Result]) -> str:
    """The settings of the protocol's own measure on h; empty if it has none."""
    own = (
        r
        for r in results
        if r.measure == protocol and r.where == "h" and not r.metric and not r.variant
    )
    result = next(own, None)
    return settings_in_words(result.settings) if result else ""
