"""The presets: every one builds, its arms are settings that exist, and it asks what it should."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from headwise import heads
from headwise.errors import UserError
from headwise.evaluation.config import describe
from headwise.model import optim
from headwise.model.config import PretrainConfig
from headwise.study.design import Group, Study, arms, config_of
from headwise.study.presets import PRESETS, preset
from headwise.study.presets.budgets import Budget

BUDGETS: tuple[Budget, ...] = get_args(Budget)
IMAGES = "./cifar10"
MOST_TRIALS = 24


def configs(study: Study) -> list[PretrainConfig]:
    """Of every arm."""
    return [config_of(study, levels) for levels in arms(study)]


def runs(study: Study) -> int:
    """How many runs it needs: equal cells are one, also where one leaves open what another says."""
    decided = (
        replace(c, head=heads.resolve(c.head, 64), optim=optim.resolve(c.optim, c.epochs))
        for c in configs(study)
    )
    return len(set(decided)) * study.seeds


def selected(study: Study, group: Group) -> list[dict[str, str]]:
    return [
        arm
        for arm in arms(study)
        if group.levels.items() <= arm.items() and (not group.along or group.along in arm)
    ]


@pytest.mark.parametrize(
    ("budget", "data"), [*((budget, ()) for budget in BUDGETS), ("small", (IMAGES,))]
)
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "pixel-histograms"])
def test_a_preset_is_a_study_of_settings_that_exist(
    name: str, budget: Budget, data: tuple[str, ...]
) -> None:
    study = preset(name, budget, data)
    assert study.name == name
    assert study.asks.endswith("?")
    assert study.seeds <= 2 if budget == "trial" else study.seeds == 5
    if budget == "trial":
        assert runs(study) <= MOST_TRIALS
        assert all(c.data.limit == 240 and c.epochs <= 4 for c in configs(study))
    if not data:
        said = re.search(r"(\d+) runs", study.takes)
        assert said, study.takes
        assert int(said[1]) == runs(study), study.takes
    check_claims(study)
    check_figures(study)


def check_claims(study: Study) -> None:
    for claim in study.claims:
        assert claim.says.endswith("."), claim.name
        assert claim.source, claim.name
        names = [contrast.name for contrast in claim.contrasts]
        assert len(set(names)) == len(names) >= 1, claim.name
        for contrast in claim.contrasts:
            groups = [group for group in (contrast.plus, contrast.minus) if group is not None]
            for group in groups:
                found = selected(study, group)
                assert found, (claim.name, contrast.name)
                if group.along:
                    assert len({float(arm[group.along]) for arm in found}) >= 2, claim.name
                check_measure(study, group.measure)
            assert len({repr(group) for group in groups}) == len(groups), claim.name


def check_figures(study: Study) -> None:
    names = [figure.name for figure in study.figures]
    assert len(set(names)) == len(names) >= 1
    for figure in study.figures:
        found = selected(study, Group(levels=figure.levels, along=figure.along))
        assert len({arm[figure.along] for arm in found}) >= 2 or len(found) == 1, figure.name
        lines = {arm.get(figure.by, "") for arm in found} | set(figure.measures)
        assert figure.paper.keys() <= lines, figure.name
        for values in figure.paper.values():
            assert values.keys() <= {arm[figure.along] for arm in found}, figure.name
        for measure in figure.measures:
            check_measure(study, measure)


def check_measure(study: Study, measure: str) -> None:
    """Something that the study measures has this key."""
    what, _, where = measure.partition("/")
    if what == "training":
        assert where in TRAINING
    elif what.startswith("fusion_"):
        assert study.fusion is not None, measure
    else:
        known = [label for name in study.evaluate.protocols for label in describe(name).labels]
        assert any(f"{what}_".startswith(f"{label}_") for label in known), measure
        if where in ("h", "z"):
            assert where in study.evaluate.taps, measure


TRAINING = ("rank_h", "rank_z", "contrastive_accuracy", "contrastive_entropy", "loss")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"got 'head'.*heads"):
        preset("head", "trial")
    with pytest.raises(UserError, match="heads takes one --data; got 2: a b"):
        preset("heads", "trial", ("a", "b"))
    with pytest.raises(UserError, match="data sets of different names"):
        preset("deep-fusion", "trial", ("a/x", "b/x"))


def test_both_orders_of_a_pair_are_one_run_where_crop_is_first() -> None:
    study = preset("augmentations", "full")
    every = ((a["first"], a["second"], config_of(study, a).augment) for a in arms(study))
    ops = {(first, second): augment for first, second, augment in every}
    assert ops["crop", "blur"] == ops["blur", "crop"]
    assert ops["noise", "blur"].ops_second == ("noise", "blur")
    assert ops["blur", "noise"].ops_second == ("blur", "noise")
    assert ops["colour", "colour"].ops_second == ("colour", "grey")
    assert ops["crop", "crop"].ops == ()


ASKED = """
any-head-over-none non-linear-over-linear output-size-hardly-matters h-over-z z-loses-augmentations
z-loses-factors discard-for-fine-tuning fine-tune-from-first-layer no-head-contaminates
composition-over-single crop-and-colour-best crops-share-a-histogram stronger-colour-not-supervised
larger-batches-help larger-batches-less-with-more-epochs larger-batches-not-supervised
best-temperature-normalised best-temperature-as-it-is nt-xent-over-other-losses
few-labels-over-scratch fine-tuning-over-scratch fine-tuning-forgets-nothing transfer-linear
transfer-fine-tuned transformer-over-ffn-supervised transformer-over-ffn-unsupervised
fusion-grows-with-depth fusion-grows-with-training transformer-best-batch-size
transformer-best-temperature transformer-best-weight-decay
"""
"""What the literature says of heads and of SimCLR. The theory is asked by its own command."""


@pytest.mark.parametrize("budget", ["trial", "small"])
def test_every_claim_is_asked_by_one_preset(budget: Budget) -> None:
    names = [claim.name for name in PRESETS for claim in preset(name, budget).claims]
    assert len(set(names)) == len(names)
    assert set(ASKED.split()) <= set(names)


def test_the_table_of_docs_is_that_of_the_presets() -> None:
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    rows = text.partition("<!-- presets -->\n")[2].partition("<!-- end -->")[0].splitlines()[2:]
    assert rows == [
        " | ".join(
            [
                f"| `{name}`",
                preset(name, "small").asks,
                *(preset(name, budget).takes for budget in BUDGETS),
            ]
        )
        + " |"
        for name in PRESETS
    ]
