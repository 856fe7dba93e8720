"""results.json: typed results, a section for each data set, and files of version 1."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import present

from headwise.errors import UserError
from headwise.files import write_json
from headwise.runs.directory import Run, save_arrays
from headwise.runs.results import Result, mean_value, summarise, to_json, unlike
from headwise.runs.sections import DataIdentity

SHAPES = DataIdentity(spec="builtin:shapes", fingerprint="5a" * 32, classes=("circle", "square"))
DIGITS = DataIdentity(spec="builtin:digits", fingerprint="d1" * 32, classes=("0", "1"))
KNN = Result(
    protocol="knn",
    measure="knn",
    where="h",
    unit="share",
    value=0.1 + 0.2,
    interval=(0.25, 1 / 3),
    std=0.01,
    standard_error=0.02,
    n=400,
    seeds=(0, 1),
    chance=0.1,
    version=1,
    settings={"k": 10},
)
TOP5 = dataclasses.replace(KNN, protocol="semi", measure="semi", variant="1", metric="top5")
DIFFERENCE = dataclasses.replace(
    KNN, against="runs/other", p_value=0.04, verdict="higher", seeds=(), settings={}
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {}, "cpu")


def test_keys_name_what_was_measured_where() -> None:
    assert KNN.key == "knn/h"
    assert TOP5.key == "semi_1_top5/h"
    assert DIFFERENCE.key == "difference/knn/h"
    assert dataclasses.replace(KNN, measure="fusion_slope", where="").key == "fusion_slope"


def test_fields_and_settings_answer_by_name_as_in_0_1() -> None:
    assert (KNN["value"], KNN["n"], KNN["interval"], KNN["k"]) == (
        0.1 + 0.2,
        400,
        [0.25, 1 / 3],
        10,
    )
    with pytest.raises(KeyError):
        _ = KNN["p_value"]


def test_results_are_read_back_to_the_bit(run: Run) -> None:
    results = {r.key: r for r in (KNN, TOP5, DIFFERENCE)}
    assert run.sections == ()
    run.add_results(SHAPES, results)
    (section,) = run.sections
    assert section.data == SHAPES
    assert section.results == results


def test_a_result_of_the_same_key_is_replaced_in_its_own_section(run: Run) -> None:
    better = dataclasses.replace(KNN, value=0.7)
    run.add_results(SHAPES, {KNN.key: KNN, TOP5.key: TOP5})
    run.add_results(DIGITS, {KNN.key: better})
    shapes, digits = run.sections
    assert list(shapes.results.values()) == [KNN, TOP5]
    assert (digits.data, digits.results) == (DIGITS, {"knn/h": better})
    run.add_results(dataclasses.replace(SHAPES, classes=(), test_images=9), {KNN.key: better})
    shapes, digits = run.sections
    assert list(shapes.results.values()) == [better, TOP5]
    assert shapes.data == dataclasses.replace(SHAPES, test_images=9), "what was known stays"
    assert run.section(DIGITS) == digits
    assert run.section(dataclasses.replace(DIGITS, fingerprint="other")) is None


def test_other_training_images_make_another_section(run: Run) -> None:
    """The same test images, but probes learned from 300 images in place of all."""
    few = dataclasses.replace(SHAPES, train_fingerprint="fe" * 32, train_images=300, limit=300)
    for data, value in ((SHAPES, 0.3), (few, 0.2)):
        run.add_results(data, {KNN.key: dataclasses.replace(KNN, value=value)})
        run.add_arrays(data, {"each/knn/h": np.full(2, value)})
    assert [s.results["knn/h"].value for s in run.sections] == [0.3, 0.2]
    assert run.section(few) == run.sections[1]
    assert run.arrays(few)["each/knn/h"].tolist() == [0.2, 0.2]
    assert run.arrays(SHAPES)["each/knn/h"].tolist() == [0.3, 0.3]
    assert few.words == "builtin:shapes (300 training images, --limit 300)"


def test_what_was_made_of_a_value_goes_with_it(run: Run) -> None:
    run.add_results(SHAPES, {r.key: r for r in (KNN, TOP5, DIFFERENCE)})
    run.add_arrays(SHAPES, {"each/knn/h": np.ones(2), "each/semi_1_top5/h": np.ones(2)})
    run.add_results(SHAPES, {KNN.key: dataclasses.replace(KNN, value=0.7)})
    run.add_arrays(SHAPES, {"truth/knn/h": np.ones(2)})
    assert run.sections[0].results.keys() == {"knn/h", "semi_1_top5/h"}
    assert run.arrays(SHAPES).keys() == {"truth/knn/h", "each/semi_1_top5/h"}


def test_results_of_other_settings_cannot_be_compared() -> None:
    def changed(**settings: object) -> Result:
        return dataclasses.replace(KNN, settings={"k": 10, **settings})

    assert unlike(KNN, changed(k=5, validation=[0.1])) is None, "it was found, not asked for"
    assert unlike(KNN, dataclasses.replace(KNN, seeds=(0,))) == ("evaluation seeds", (0, 1), (0,))
    assert unlike(KNN, dataclasses.replace(KNN, version=2)) == ("version", 1, 2)
    one, other = (changed(config={"lr": 0.1, "epochs": n}, steps=n) for n in (90, 1))
    assert unlike(one, other) == ("epochs", 90, 1)
    assert unlike(one, KNN) == ("config", {"lr": 0.1, "epochs": 90}, None)
    targets = [changed(target_fingerprint=name) for name in "ab"]
    assert unlike(*targets) == ("target_fingerprint", "a", "b")
    assert unlike(targets[0], dataclasses.replace(targets[1], where="z")) is None


def test_arrays_of_two_data_sets_stay_apart(run: Run) -> None:
    run.add_arrays(SHAPES, {"confusion/linear/h": np.eye(2), "each/knn/h": np.ones(3)})
    run.add_arrays(DIGITS, {"confusion/linear/h": np.ones((2, 2))})
    assert run.arrays(SHAPES).keys() == {"confusion/linear/h", "each/knn/h"}
    np.testing.assert_array_equal(run.arrays(SHAPES)["confusion/linear/h"], np.eye(2))
    np.testing.assert_array_equal(run.arrays(DIGITS)["confusion/linear/h"], np.ones((2, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valeu": 1.0}, "unknown key 'valeu': did you mean 'value'"),
        ({"unit": "percent"}, "cannot be 'percent'"),
        ({"value": "high"}, "must be of type float"),
        ({"n": None}, "must be of type int"),
    ],
)
def test_a_file_is_read_strictly(run: Run, change: dict[str, object], message: str) -> None:
    run.add_results(SHAPES, {KNN.key: KNN})
    file = json.loads((run.path / "results.json").read_text())
    file["sections"][0]["results"]["knn/h"] |= change
    write_json(run.path / "results.json", file)
    with pytest.raises(UserError, match=message):
        _ = run.sections


def test_a_key_that_is_missing_and_a_schema_of_the_future_are_named(run: Run) -> None:
    run.add_results(SHAPES, {KNN.key: KNN})
    file = json.loads((run.path / "results.json").read_text())
    del file["sections"][0]["results"]["knn/h"]["unit"]
    write_json(run.path / "results.json", file)
    with pytest.raises(UserError, match="knn/h must have a key 'unit'"):
        _ = run.sections
    write_json(run.path / "results.json", {"schema": 3, "sections": []})
    with pytest.raises(UserError, match="must have schema 2 or 1; got 3"):
        _ = run.sections


def test_seeds_are_summarised() -> None:
    right = torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 0]])
    values = [
        mean_value("linear", "linear", "h", each, chance=c, settings={"penalty": c, "labels": 4})
        for each, c in zip(right, (0.25, 0.5), strict=True)
    ]
    result = summarise(values, (3, 4), version=1)
    assert (result.value, result.n, result.seeds) == (0.625, 4, (3, 4))
    assert result.std == pytest.approx(np.std([0.5, 0.75], ddof=1))
    assert result.chance is None
    assert result.settings == {"penalty": [0.25, 0.5], "labels": 4, "chances": [0.25, 0.5]}
    low, high = present(result.interval)
    assert low <= 0.625 <= high


def old_result(protocol: str, data: DataIdentity, value: float, **other: object) -> dict:
    """As Headwise 0.1 wrote it."""
    about = {"version": 1, "data": data.spec, "fingerprint": data.fingerprint}
    return {"value": value, "n": 400, "seeds": [0], "protocol": protocol, **about, **other}


def test_a_file_of_version_one_is_lifted(run: Run) -> None:
    old = {
        "knn/h": old_result("knn", SHAPES, 0.1 + 0.2, interval=[0.2, 0.4], k=10, chance=0.1),
        "semi_10_top5/scratch": old_result("semi", SHAPES, 0.5, labels=40),
        "linear_10_per_class/z": old_result("linear_10", SHAPES, 0.25, chance=[0.1, 0.2]),
        "cluster_spectral_nmi/h": old_result("cluster", SHAPES, 0.125),
        "factor_size_px/h": old_result("factors", DIGITS, 0.75),
        "invariance_crop_0.25/h": old_result("robustness", DIGITS, 0.875),
        "robustness_rotation_90/h": old_result("robustness", DIGITS, 0.625),
        "transformation_grey/z": old_result("transformations", DIGITS, 0.9),
        "leakage/z": old_result("leakage", DIGITS, 0.0, verdict="nothing can leak"),
        "fusion_slope": old_result("fusion", DIGITS, -0.1, split="test"),
        "cka_runs/h": {"value": 0.6, "n": 400, "against": "m", "protocol": "geometry"},
        "difference/knn/h": {
            "value": 0.005, "n": 400, "interval": [-0.1, 0.1], "p_value": 0.9,
            "verdict": "no difference shown", "against": "m", "protocol": "difference",
            "version": 1, "fingerprint": SHAPES.fingerprint,
        },
        "parameters": {"value": 1024},
    }  # fmt: skip
    write_json(run.path / "results.json", {"schema": 1, "results": old})
    arrays = {"each/knn/h": np.ones(4), "confusion/x/h": np.eye(2), "classes": np.array(["a"])}
    save_arrays(run.path / "evaluation.npz", arrays | {"spectrum/leakage/z": np.zeros(2)})
    shapes, digits = run.sections
    lifted = {**shapes.results, **digits.results}
    assert lifted.keys() == old.keys() - {"parameters"}
    for name, result in lifted.items():
        assert name == result.key
        for key in old[name].keys() - {"data", "fingerprint", "protocol"}:
            given = "chances" if old[name][key] == [0.1, 0.2] else key
            assert result[given] == old[name][key], (name, key)
    assert [lifted[k].unit for k in ("knn/h", "cluster_spectral_nmi/h", "factor_size_px/h")] == [
        "share", "score", "score",
    ]  # fmt: skip
    assert lifted["invariance_crop_0.25/h"].unit == "cosine"
    assert lifted["invariance_crop_0.25/h"].settings == {"augmentation": "crop", "strength": 0.25}
    assert lifted["robustness_rotation_90/h"].settings == {"augmentation": "rotation_90"}
    semi = lifted["semi_10_top5/scratch"]
    assert (semi.measure, semi.variant, semi.metric) == ("semi", "10", "top5")
    difference = lifted["difference/knn/h"]
    assert (difference.protocol, difference.against) == ("knn", "m")
    assert shapes.data.classes == (), "with two data sets it is not known whose the names are"
    assert run.arrays(shapes.data).keys() == {"each/knn/h"}
    assert run.arrays(digits.data).keys() == {"spectrum/leakage/z"}


def test_adding_to_a_file_of_version_one_keeps_what_it_had(run: Run) -> None:
    old = {"knn/h": old_result("knn", SHAPES, 0.3, k=10)}
    write_json(run.path / "results.json", {"schema": 1, "results": old})
    save_arrays(
        run.path / "evaluation.npz", {"each/knn/h": np.ones(4), "classes": np.array(["a", "b"])}
    )
    (before,) = run.sections
    assert before.data.classes == ("a", "b")
    run.add_arrays(DIGITS, {"each/knn/h": np.zeros(2)})
    run.add_results(DIGITS, {KNN.key: KNN})
    shapes, digits = run.sections
    assert shapes == before
    assert digits.results == {"knn/h": KNN}
    np.testing.assert_array_equal(run.arrays(shapes.data)["each/knn/h"], np.ones(4))
    np.testing.assert_array_equal(run.arrays(digits.data)["each/knn/h"], np.zeros(2))
    assert json.loads((run.path / "results.json").read_text())["schema"] == 2
    assert to_json(shapes.results["knn/h"])["settings"] == {"k": 10}
