"""A study from its beginning to findings.json: interrupted, grown, changed, shared."""

import json
import multiprocessing
import multiprocessing.process
import os
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from headwise.augment import AugmentConfig
from headwise.data import DataConfig
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.own_code import own
from headwise.study.collect import collect
from headwise.study.design import Claim, Contrast, Group, Study, axis, cells
from headwise.study.place import make_plan, read_plan, state
from headwise.study.run import run_study
from headwise.study.work import opener, work

BASE = PretrainConfig(
    data=DataConfig(spec="builtin:shapes", limit=40),
    augment=AugmentConfig(size=16, blur=0.0),
    encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided", widths=(4, 4, 8, 8)),
    head=HeadConfig(name="linear", output_size=8),
    epochs=2,
    batch_size=10,
    knn_every=0,
    device="cpu",
)
STUDY = Study(
    name="tiny",
    asks="Does a head help?",
    base=BASE,
    grids=((axis("head", "head.name", "identity", "linear"),),),
    evaluate=EvaluateConfig(protocols=("knn",), baselines=False),
    seeds=2,
    claims=(
        Claim(
            name="linear-over-none",
            says="A linear head makes h better than none.",
            source="planted",
            contrasts=(
                Contrast(
                    name="linear − identity",
                    plus=Group(levels={"head": "linear"}, measure="knn/h"),
                    minus=Group(levels={"head": "identity"}, measure="knn/h"),
                ),
            ),
        ),
    ),
)


GRID = ((axis("epochs", "epochs", 1),),)


def found(folder: Path) -> dict[str, Any]:
    """What a study found, without what depends on the clock."""
    findings = json.loads((folder / "findings.json").read_text())
    return {name: value for name, value in findings.items() if name != "hours"}


def forked(target: Callable[..., None], *given: Any) -> multiprocessing.process.BaseProcess:
    worker = multiprocessing.get_context("fork").Process(
        target=target, args=given, kwargs={"quiet": True}
    )
    with warnings.catch_warnings():  # Python warns of threads; the child uses none of ours
        warnings.simplefilter("ignore", DeprecationWarning)
        worker.start()
    return worker


def test_a_study_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL at ten random moments, of one of two workers and then of the other; then two studies
    share their runs."""
    whole, killed = tmp_path / "whole" / "study", tmp_path / "killed" / "study"
    run_study(STUDY, whole, quiet=True)
    assert len(state(whole).done) == 4
    assert found(whole)["missing"] == 0

    moments = random.Random(0)
    for _ in range(5):
        workers = [forked(run_study, STUDY, killed), forked(work, killed)]
        moments.shuffle(workers)
        for worker in workers:
            time.sleep(moments.uniform(0.2, 1.5))
            worker.kill()
            worker.join()
    assert not state(killed).failed
    run_study(STUDY, killed, quiet=True)
    assert found(killed) == found(whole)
    names = sorted(path.name for path in (killed.parent / "cells").iterdir())
    assert names == sorted({one.name for one in read_plan(killed)})

    # Another study of which half is known trains only the other half.
    stamps = {name: os.stat(killed.parent / "cells" / name / "DONE").st_mtime for name in names}
    length = axis("epochs", "epochs", 2, 1)
    wider = replace(STUDY, name="wider", grids=((length,),), seeds=1, claims=())
    run_study(wider, killed.parent / "wider", quiet=True)
    after = {path.name for path in (killed.parent / "cells").iterdir()}
    assert len(after) == len(names) + 1
    assert stamps == {
        name: os.stat(killed.parent / "cells" / name / "DONE").st_mtime for name in names
    }

    # More seeds are taken on; other settings are refused.
    run_study(replace(STUDY, seeds=3), killed, quiet=True)
    assert len(state(killed).done) == 6
    run_study(STUDY, killed, quiet=True)  # fewer are no change
    assert found(killed)["seeds"] == 3
    changed = replace(STUDY, base=replace(BASE, temperature=0.1))
    with pytest.raises(UserError, match=r"base\.temperature was 0\.5 and is 0\.1; give the words"):
        run_study(changed, killed, quiet=True)

    # A run that was removed is made again.
    gone = killed.parent / "cells" / names[0]
    kept = (gone / "results.json").read_text()
    for path in sorted(gone.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run_study(STUDY, killed, quiet=True)
    assert (gone / "results.json").read_text() == kept


def test_a_cell_that_cannot_be_trained_is_reported(tmp_path: Path) -> None:
    """A batch larger than the images: the other arm is trained, and the findings have both."""
    study = replace(STUDY, grids=((axis("batch", "batch_size", 10, 500),),), seeds=1, claims=())
    with pytest.raises(UserError, match="--batch-size must be at most the number of training"):
        run_study(study, tmp_path / "study", quiet=True)
    assert not (tmp_path / "study").exists()  # known before anything is written


def test_wrong_studies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must have arms; its grids are empty"):
        replace(STUDY, grids=())
    with pytest.raises(UserError, match="must have levels; got none"):
        axis("head", "head.name")
    wrong = replace(STUDY, grids=((axis("head", "temperatur", 0.1),),), claims=())
    with pytest.raises(
        UserError, match="of 'tiny': no setting 'temperatur'; did you mean 'temperature'"
    ):
        cells(wrong)
    with pytest.raises(UserError, match="names no axis of its study: 'head'"):
        replace(STUDY, grids=((axis("hed", "head.name", "mlp"),),))
    with pytest.raises(UserError, match="names no level of 'head': 'linear'"):
        replace(STUDY, grids=((axis("head", "head.name", "identity", "mlp"),),))
    head = HeadConfig(own=own(torch.nn.Identity))
    with_own = replace(STUDY, base=replace(BASE, head=head), claims=(), grids=GRID)
    with pytest.raises(UserError, match="a study must not have own code; 'tiny' has"):
        run_study(with_own, tmp_path / "study")
    with pytest.raises(UserError, match="--workers must be at least 1; got 0"):
        run_study(STUDY, tmp_path / "study", workers=0)
    with pytest.raises(UserError, match=r"must have study.json; .* begin one with"):
        collect(tmp_path)


def test_a_study_is_told_apart_by_what_changes_results(tmp_path: Path) -> None:
    """The same cells on another device; other cells with another seed or other images."""
    names = {one.name for one in make_plan(STUDY, opener())}
    for same in (replace(BASE, log_every=3), replace(BASE, precision="float32")):
        other = replace(STUDY, base=same)
        assert {one.name for one in make_plan(other, opener())} == names
    data = DataConfig(spec="builtin:shapes", limit=50)
    for unlike in (
        replace(BASE, seed=7),
        replace(BASE, temperature=0.2),
        replace(BASE, data=data),
    ):
        other = replace(STUDY, base=unlike)
        assert not {one.name for one in make_plan(other, opener())} & names


def test_many_cells(tmp_path: Path) -> None:
    """All of them are named, and none twice."""
    temperatures = [0.05 + i / 1000 for i in range(40)]
    study = replace(STUDY, grids=((axis("t", "temperature", *temperatures),),), seeds=5, claims=())
    plan = make_plan(study, opener())
    assert len({one.name for one in plan}) == 200
