"""Every protocol has a name, a description and a place in the docs."""

from pathlib import Path

import pytest

from headwise import EvaluateConfig
from headwise.errors import UserError
from headwise.evaluation.config import PROTOCOLS, describe, protocol
from headwise.fusion.description import FUSION

DOCS = Path(__file__).parents[2] / "docs" / "protocols.md"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_name_is_measured_described_and_documented(name: str) -> None:
    known = protocol(name, EvaluateConfig())
    assert known.on_features or known.on_model
    assert f"\n## {name}\n" in DOCS.read_text()
    assert known.description.title
    assert known.description.definition.endswith(".")
    assert known.description.elsewhere.keys() <= known.description.labels.keys()


def test_no_two_protocols_look_alike() -> None:
    descriptions = [*map(describe, PROTOCOLS), FUSION]
    assert len({description.title for description in descriptions}) == len(PROTOCOLS) + 1
    labelled = [measure for description in descriptions for measure in description.labels]
    assert len(labelled) == len(set(labelled)), "a measure belongs to one protocol"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"got 'liner'; did you mean 'linear'\?"):
        describe("liner")
