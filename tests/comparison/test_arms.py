"""Arms: a head in several settings, comparisons that grow, and runs that were made one by one."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwise.comparison import baselines, elsewhere, findings, measuring, summary
from headwise.comparison.arms import check_arms, config_of
from headwise.comparison.compare import CompareConfig, compare, resume_comparison
from headwise.comparison.elsewhere import compare_runs, grouped
from headwise.data import Splits, open_images
from headwise.errors import UserError
from headwise.files import read_json, safe_name, write_json
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.pretraining import finished as pretraining
from headwise.pretraining.loop import pretrain
from headwise.report import comparison_text
from headwise.report.reading.comparison import read_comparison
from headwise.report.reading.long import numbers
from headwise.runs.directory import Run, load_arrays

ARMS = ("identity", "mlp", "mlp:temperature=0.2,augment.crop_scale=0.2 1")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Only k-NN is measured, and there is no page."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (baselines, findings, summary):
            patch.setattr(module, "PROTOCOLS", ("knn", "knn_self"))
        patch.setattr(measuring, "write_report", lambda out: None)
        patch.setattr(summary, "_map", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def config(tiny: PretrainConfig) -> PretrainConfig:
    """Runs of three steps."""
    return dataclasses.replace(tiny, epochs=1, knn_every=0)


@pytest.fixture(scope="module")
def images(config: PretrainConfig) -> Splits:
    return open_images(config.data)


@pytest.fixture(scope="module")
def whole(config: PretrainConfig, images: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of three arms with two seeds. Tests change copies of it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    compare(of(config, ARMS, 2), out, images, quiet=True)
    return out


def of(config: PretrainConfig, arms: tuple[str, ...], seeds: int) -> CompareConfig:
    return CompareConfig(pretrain=config, arms=arms, seeds=seeds, scratch=False)


def untimed(found: dict[str, Any]) -> dict[str, Any]:
    """A summary without the seconds that its runs took."""
    groups = (found, found.get("std", {}), found["plus_minus"], *found["by_seed"].values())
    for row in (row for group in groups for row in group.get("heads", {}).values()):
        row.pop("seconds")
    return found


def test_an_arm_is_a_head_with_settings(tiny: PretrainConfig) -> None:
    arm = config_of(tiny, "transformer:head.context=self,batch-size=10,optim.lr=none")
    expected = dataclasses.replace(
        tiny, head=HeadConfig(name="transformer", context="self"), batch_size=10
    )
    assert arm == expected
    # The comparison's own head settings count for its head, and lists have spaces between.
    arm = config_of(tiny, "mlp:augment.crop_scale=0.2 1,encoder.widths=8 8 8 8")
    assert arm.head == tiny.head
    assert (arm.augment.crop_scale, arm.encoder.widths) == ((0.2, 1.0), (8, 8, 8, 8))
    assert config_of(tiny, "mlp:head.batch_norm=False").head.batch_norm is False


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ("transfomer", r"must begin with a head; got 'transfomer'; did you mean 'transformer'\?"),
        ("mlp:head.widht=3", r"no setting 'head.widht'; did you mean 'head.width'\?"),
        ("mlp:head.width=wide", "head.width must be of type int; got 'wide'"),
        ("mlp:temperature=0", "--temperature must be positive; got 0.0"),
        ("mlp:objective=info-nce", "objective cannot be 'info-nce'"),
        ("mlp:width", "must be HEAD or HEAD:setting=value,setting=value; got 'width'"),
        ("mlp:data.limit=3", "data.limit must be the same for all arms"),
        ("mlp:seed=3", "seed must be the same for all arms"),
        ("mlp:device=cuda", "device must be the same for all arms"),
        ("mlp mlp:temperature=0.5", "'mlp' and 'mlp:temperature=0.5' do not"),
        ("mlp mlp", "must name each arm once; got 'mlp mlp'"),
        ("", "must name each arm once; got ''"),
    ],
)
def test_arms_that_cannot_be(tiny: PretrainConfig, arms: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        check_arms(tiny, arms.split())
    assert "\n" not in str(error.value)


def test_a_comparison_grows_to_what_it_would_have_been(
    config: PretrainConfig,
    images: Splits,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, last = tmp_path / "grown", ARMS[2]
    begun = compare(of(config, ARMS[:2], 1), out, images, quiet=True)
    assert list(begun["heads"]) == list(ARMS[:2])
    finished = {run: (run / "DONE").stat().st_mtime_ns for run in out.glob("*-seed?")}
    trained: list[Path] = []

    def stopped(config: PretrainConfig, path: Path, images: Splits, **others: Any) -> Run:
        trained.append(path)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return pretrain(config, path, images, **others)

    monkeypatch.setattr(pretraining, "pretrain", stopped)
    with pytest.raises(KeyboardInterrupt):
        resume_comparison(out, images, arms=("mlp", last), seeds=2, quiet=True)
    grown = resume_comparison(out, images, quiet=True)
    assert untimed(grown) == untimed(read_json(whole / "summary.json"))
    assert {run: (run / "DONE").stat().st_mtime_ns for run in finished} == finished
    assert read_json(out / "config.json") == read_json(whole / "config.json")
    assert grown["runs"][last]["1"] == f"{safe_name(last)}-seed1"
    assert not set(safe_name(last)) & set('/:*?"<>| \\')
    with pytest.raises(UserError, match="at least the 2 that the comparison has; got 1"):
        resume_comparison(out, images, seeds=1, quiet=True)
    with pytest.raises(UserError, match=r"'mlp' and 'mlp:head\.depth=2' do not"):
        resume_comparison(out, images, arms=("mlp:head.depth=2",), quiet=True)


def test_runs_must_have_the_settings_of_their_comparison(
    images: Splits, whole: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    values = read_json(out / "config.json")
    write_json(out / "config.json", {**values, "pretrain": {**values["pretrain"], "epochs": 3}})
    with pytest.raises(UserError, match=r"epochs is 1 in .*identity-seed0.* and should be 3"):
        resume_comparison(out, images, quiet=True)
    write_json(out / "config.json", values)
    run = read_json(out / "mlp-seed0" / "config.json")
    write_json(out / "mlp-seed0" / "config.json", {**run, "seed": 5})
    with pytest.raises(UserError, match=r"seed is 5 in .*mlp-seed0.* and should be 0"):
        resume_comparison(out, images, quiet=True)


def test_a_comparison_of_before_there_were_arms(
    images: Splits, whole: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    values = read_json(out / "config.json")
    assert values.pop("arms") == list(ARMS)
    write_json(out / "config.json", {**values, "heads": ["identity", "mlp"]})
    found = resume_comparison(out, images, quiet=True)["heads"]
    assert found == {arm: read_json(whole / "summary.json")["heads"][arm] for arm in ARMS[:2]}
    # Its summary does not say where its runs are.
    summary = read_json(out / "summary.json")
    write_json(out / "summary.json", {"heads": summary["heads"], "seeds": 2})
    places = ["identity-seed0", "identity-seed1", "mlp-seed0", "mlp-seed1"]
    assert [run.place for run in read_comparison(out).runs] == places


def test_pixels_are_the_same_at_every_seed(whole: Path) -> None:
    first, second = (load_arrays(whole / f"baselines-seed{seed}.npz") for seed in (0, 1))
    assert (first["knn/pixels"] == second["knn/pixels"]).all()
    assert (first["knn/untrained"] != second["knn/untrained"]).any()


def test_runs_made_one_by_one_are_the_comparison_that_has_them(
    images: Splits, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [whole / f"{safe_name(arm)}-seed{seed}" for seed in (0, 1) for arm in ARMS[1:]]
    monkeypatch.setattr(elsewhere, "open_images", lambda *_: images)
    monkeypatch.setattr(summary, "measure_protocol", None)  # everything is measured
    found = untimed(compare_runs(runs, tmp_path / "out", scratch=False))
    there = untimed(read_json(whole / "summary.json"))
    assert list(found["heads"]) == [
        "mlp:augment.crop_scale=0.08 1.0,temperature=0.5",
        "mlp:augment.crop_scale=0.2 1.0,temperature=0.2",
    ]
    assert list(found["heads"].values()) == [there["heads"][arm] for arm in ARMS[1:]]
    assert found["baselines"] == there["baselines"]
    assert found["differ"] == ["augment.crop_scale", "temperature"]
    assert untimed(resume_comparison(tmp_path / "out")) == found
    text = comparison_text(tmp_path / "out")
    assert "The arms differ in augment.crop_scale and temperature. The baselines have the" in text
    assert read_comparison(tmp_path / "out").runs[0].place == str(runs[0])
    for place, arms in ((whole, {*ARMS}), (tmp_path / "out", {*found["heads"]})):
        assert {one.setting for one in numbers([place], ["knn/h"])} == arms
    with pytest.raises(UserError, match="compares runs that were finished before it"):
        resume_comparison(tmp_path / "out", seeds=3)


def copy_with(run: Path, to: Path, **changes: Any) -> Run:
    """A finished run's settings, changed: all that is looked at before images are opened."""
    to.mkdir()
    values = read_json(run / "config.json")
    write_json(to / "config.json", {**values, **changes})
    (to / "DONE").write_text("{}")
    return Run(to)


def test_runs_that_cannot_be_compared(whole: Path, tmp_path: Path) -> None:
    first = Run(shutil.copytree(whole / "mlp-seed0", tmp_path / "first"))
    values = first.config
    (first.path / "images.json").unlink()  # as of version 0.1: its settings say which images
    cosine = {"optim": {**values["optim"], "warmup_epochs": 0.3}}  # as three epochs decide
    cases: dict[str, dict[str, Any]] = {
        "data.limit is 60 in .* and 50 in": {"data": {**values["data"], "limit": 50}},
        "have the same settings and the same seed": {},
        "seeds in common; got 0 of mlp:temperature=0.5; 1 of": {"seed": 1, "temperature": 0.1},
        "differ in temperature must have as many epochs": {
            "epochs": 3,
            "temperature": 0.1,
            **cosine,
        },
    }
    for place, (said, changes) in enumerate(cases.items()):
        other = copy_with(first.path, tmp_path / str(place), **changes)
        with pytest.raises(UserError, match=said) as error:
            compare_runs([first, other], tmp_path / "out")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="at least two runs; got 1"):
        grouped([first])
    # Epochs alone are a question of their own.
    longer = copy_with(first.path, tmp_path / "longer", epochs=3, **cosine)
    assert list(grouped([first, longer])) == ["mlp:epochs=1", "mlp:epochs=3"]
