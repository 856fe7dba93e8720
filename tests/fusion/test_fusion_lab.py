"""The lab as a whole: planted truths, what it says of them, what it writes, and what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow import labels_of, present
from planted_fusion import CLASSES, IMAGES, coded_batches, planted
from safetensors.torch import load_file, save_file
from scipy import stats

from headwise import augment, pretrain
from headwise.augment import AugmentConfig
from headwise.cli.main import main
from headwise.data import DataConfig, Splits, open_images
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.fusion.batches import draw_batches, plan_batches
from headwise.fusion.config import FusionConfig
from headwise.fusion.controls import with_statistics
from headwise.fusion.description import FUSION
from headwise.fusion.lab import main_results, measure_fusion
from headwise.fusion.measuring import measure_batches
from headwise.fusion.verdict import Emergence, depth_slope, emergence, estimate, judge
from headwise.heads import Context, HeadConfig, build_head
from headwise.model.config import PretrainConfig
from headwise.model.extraction import ExtractConfig
from headwise.report.prose.fusion import conclusion
from headwise.report.tables.fusion import text_table
from headwise.runs.directory import Run
from headwise.runs.results import to_json

ROWS = 2 * IMAGES
EACH = IMAGES // CLASSES
MOST = (IMAGES - 1) / (EACH - 1)
"""The gain of attention that goes to the own class alone."""

CONFIG = PretrainConfig(
    data=DataConfig(spec="builtin:shapes", limit=60),
    augment=AugmentConfig(size=16),
    encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16)),
    head=HeadConfig(name="transformer", depth=2, width=16, num_heads=2, output_size=8),
    epochs=3,
    batch_size=16,
    keep_checkpoints=9,
    device="cpu",
    precision="float32",
    knn_every=0,
)
QUICK = FusionConfig(batch_size=20, batches=3, permutations=20)


def measured(*patterns: str, context: Context = "joint", depth: int = 2) -> dict[str, np.ndarray]:
    batches = coded_batches(6)
    heads = planted(*patterns, batches=batches, context=context, depth=depth)
    arrays = measure_batches(heads, batches, permutations=50, seed=0)
    return arrays | {"split": np.array("test"), "classes": np.array(list("abcd"))}


def words(arrays: dict[str, np.ndarray], context: Context = "joint") -> tuple[str, ...]:
    lines = conclusion(arrays, HeadConfig(name="transformer", context=context))
    assert len(lines) == 5
    assert all(line and "\n" not in line and "nan" not in line for line in lines), lines
    return lines


def close(arrays: dict[str, np.ndarray], **expected: float) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name], value, atol=1e-6, err_msg=name)


def test_total_fusion():
    arrays = measured("class", "class")
    close(
        arrays,
        gain=MOST,
        layer_gain=MOST,
        other_mass=1 - 1 / EACH,
        same_mass=1 - 1 / EACH,
        twin_mass=1 / (2 * EACH),
        self_mass=1 / (2 * EACH),
        entropy=np.log(2 * EACH),
        auroc=1,
        layer_nmi=1,
        p_gain=1 / 51,
        p_layer_gain=1 / 51,
    )
    verdict = judge(arrays)
    assert verdict.fuses
    assert all(block.fuses for block in verdict.blocks)
    assert verdict.blocks[0].differences["uniform"].mean == pytest.approx(MOST - 1, abs=1e-6)
    assert present(verdict.slope).mean == pytest.approx(0, abs=1e-6)
    lines = words(arrays)
    assert lines[0].startswith("In this network, fusion exceeds its controls at 2 of 2 blocks")
    assert "12.5 % of a row's attention goes to its twin, 12.5 % to itself and 75.0 %" in lines[2]
    assert "it chooses: the similarity" in lines[1]
    assert text_table(arrays).count("fusion") == 2
    few = {name: a[:5] if a.shape[:1] == (6,) else a for name, a in arrays.items()}
    assert "5 batches are too few for a verdict, which needs 6" in words(few)[0]
    assert "only 5 batches" in words(few)[4]
    assert "headwise fusion RUN RUN RUN RUN RUN" in lines[4]
    del arrays["layer_gain_input"]
    assert "run headwise fusion again" in words(arrays)[0]


def test_uniform_attention_is_not_fusion():
    arrays = measured("uniform", "uniform")
    close(
        arrays,
        gain=1,
        layer_gain=1,
        twin_mass=1 / ROWS,
        self_mass=1 / ROWS,
        other_mass=1 - 2 / ROWS,
        entropy=np.log(ROWS),
        auroc=0.5,
        p_layer_gain=1,
    )
    for name in ("nn1", "rank", "within"):
        np.testing.assert_allclose(arrays[name], arrays[f"{name}_uniform"], atol=1e-6)
    assert not judge(arrays).fuses
    line = words(arrays)[0]
    assert line.startswith("In this network, fusion does not exceed its controls")
    assert "1.000 is not shown to exceed uniform attention by 0.02 (1.000;" in line


def test_copying_the_twin_is_not_fusion():
    arrays = measured("twin", "twin")
    close(arrays, twin_mass=1, self_mass=0, other_mass=0, gain=1, effective_number=1)
    assert not judge(arrays).fuses
    lines = words(arrays)
    assert lines[0].startswith("In this network, fusion does not exceed its controls")
    assert "of the attention goes to other images" in lines[0]
    assert "100.0 % of a row's attention goes to its twin" in lines[2]


def test_one_attention_head_of_two():
    """Half of the layer's mass spreads evenly over all rows, half over the own class."""
    arrays = measured("class", "uniform")
    close({"gain": arrays["gain"][..., 0]}, gain=MOST)
    close({"gain": arrays["gain"][..., 1]}, gain=1)
    fused, even = 1 - 1 / EACH, 1 - 2 / ROWS
    chance = (EACH - 1) / (IMAGES - 1)
    layer = (fused + even * chance) / ((fused + even) * chance)
    close(arrays, layer_gain=layer)
    assert "attention head 1 of 2" in words(arrays)[1]


def test_what_h_says_already_is_not_the_heads():
    """The same gain is not shown where the similarity of h reaches it at the same entropy."""
    arrays = measured("class", "class")
    arrays["layer_gain_h"] = arrays["layer_gain"].copy()
    verdict = judge(arrays)
    assert not verdict.fuses
    assert "similarity of h" in verdict.strongest.obstacle
    arrays["layer_gain_h"] -= 1
    arrays["p_layer_gain"][:] = 0.03  # above 0.05 / 2
    assert "permuted labels" in judge(arrays).strongest.obstacle
    arrays["p_layer_gain"][1] = 0.02
    assert [block.fuses for block in judge(arrays).blocks] == [False, True]
    assert judge(arrays).strongest.tap == "g3"


@pytest.mark.parametrize("context", ["per-view", "self", "halves", "twin-masked"])
def test_contexts(context):
    arrays = measured("class", "class", context=context, depth=1)
    lines = words(arrays, context)
    if context == "self":
        close(arrays, self_mass=1, other_mass=0, gain=1)
        assert np.isnan(arrays["layer_auroc"]).all()
        assert not judge(arrays).fuses
        assert "nothing to fuse" in lines[4]
    if context == "per-view":
        close(arrays, twin_mass=0, self_mass=1 / EACH, gain=MOST)
        # Within a view, the most similar rows of h are the classmates too.
        np.testing.assert_allclose(arrays["layer_gain_h"], MOST, rtol=1e-5)
        assert "similarity of h" in judge(arrays).strongest.obstacle
    assert ("leaks" in lines[4]) == (context == "twin-masked")
    if context in ("halves", "twin-masked"):
        close(arrays, twin_mass=0)
    results = main_results(arrays, seed=0, settings={})
    assert all(np.isfinite(result.value) for result in results.values())
    assert all(result.measure in FUSION.labels for result in results.values())
    json.dumps({name: to_json(result) for name, result in results.items()}, allow_nan=False)


def test_intervals_are_scipys():
    values = np.random.default_rng(0).normal(1, 0.2, size=(7, 5))
    for comparisons in (1, 4):
        found = estimate(values[:, 0], comparisons)
        level = 1 - 0.05 / comparisons
        low, high = stats.ttest_1samp(values[:, 0], 0).confidence_interval(level)
        assert (found.low, found.high) == pytest.approx((low, high))
    slope = present(depth_slope(values))
    each = [stats.linregress(np.arange(5), row).slope for row in values]
    assert slope.mean == pytest.approx(np.mean(each))
    assert slope.low == pytest.approx(stats.ttest_1samp(each, 0).confidence_interval().low)
    assert depth_slope(values[:, :1]) is None
    assert np.isnan(estimate(np.array([1.0])).low)
    assert np.isnan(estimate(np.array([np.nan, np.nan])).mean)


@pytest.mark.parametrize(
    ("fused", "separable", "order"),
    [(1, 3, "before"), (3, 1, "after"), (2, 2, "same checkpoint"), (None, 2, "did not emerge")],
)
def test_what_emerges_first(fused, separable, order):
    noise = np.random.default_rng(0).normal(0, 0.01, size=(5, 6, 2))
    gain, nn1 = 1 + noise, 0.2 + noise[..., 0]
    if fused is not None:
        gain[fused:, :, 1] += 1
    nn1[separable:] += 0.5
    arrays = {
        "training_epochs": np.arange(5.0) * 10,
        "training_gain": gain,
        "training_gain_h": np.ones_like(gain),
        "training_gain_untrained": np.ones((6, 2)),
        "training_nn1_h": nn1,
    }
    found = present(emergence(arrays))
    expected = None if fused is None else 10.0 * fused
    assert found == Emergence(fusion=expected, separable=10.0 * separable)
    assert order in found.order


def test_a_new_head_takes_the_statistics_of_the_batches():
    batches = coded_batches(3)
    head = build_head(HeadConfig(name="mlp", depth=2, width=6, output_size=4), len(batches[0].h[0]))
    first: Any = head.layers[0]
    with_statistics(head, batches)
    weight, norm = first[0].weight, first[1]
    mean = torch.stack([(batch.h @ weight.T).mean(0) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean.detach())
    assert not head.training


@pytest.fixture(scope="module")
def images() -> Splits:
    return open_images(CONFIG.data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Splits) -> Path:
    path = tmp_path_factory.mktemp("runs") / "transformer"
    pretrain(CONFIG, path, images, quiet=True)
    return path


def test_a_run(run: Path, images: Splits):
    before = {path.name: path.read_bytes() for path in run.rglob("*.safetensors")}
    config = dataclasses.replace(QUICK, over_training=True, permutations=40)
    results = measure_fusion(run, config=config, images=images)
    arrays = Run.open(run).fusion_arrays
    assert {path.name: path.read_bytes() for path in run.rglob("*.safetensors")} == before
    shapes = {
        "taps": (5,),
        "block_taps": (2,),
        "gain": (3, 2, 2),
        "effective_number_untrained": (3, 2, 2),
        "auroc_h": (3,),
        "layer_nmi_h": (3,),
        "layer_gain_h": (3, 2),
        "layer_gain_input": (3, 2),
        "layer_gain_untrained": (3, 2),
        "layer_nmi_permuted": (2, 40),
        "p_gain": (2, 2),
        "p_layer_auroc": (2,),
        "nn1_uniform": (3, 5),
        "nn1_permuted": (5, 40),
        "p_nn1": (5,),
        "maps": (2, 2, 40, 40),
        "path": (3, 40, 2),
        "training_epochs": (4,),
        "training_gain": (4, 3, 2),
        "training_gain_untrained": (3, 2),
        "training_nn1_h": (4, 3),
        "training_twin_mass": (4, 3, 2),
    }
    assert {name: arrays[name].shape for name in shapes} == shapes
    assert "gain_permuted" not in arrays
    assert arrays["training_epochs"].tolist() == [0, 1, 2, 3]
    # The last checkpoint is the run's model, on the same images and views.
    np.testing.assert_allclose(arrays["training_gain"][-1], arrays["layer_gain"], rtol=1e-5)
    np.testing.assert_allclose(arrays["training_nn1_h"][-1], arrays["nn1"][:, 0])
    assert not np.allclose(arrays["training_gain"][0], arrays["layer_gain"], rtol=1e-3)
    (section,) = Run.open(run).sections
    assert section.results == results
    assert arrays["fingerprint"] == section.data.fingerprint == present(images.test).fingerprint
    for name in (
        "gain",
        "gain_untrained",
        "gain_h",
        "gain_input",
        "twin_mass",
        "self_mass",
        "auroc",
        "nmi",
    ):
        assert {f"fusion_{name}/g2", f"fusion_{name}/g3"} <= set(results)
    one = results["fusion_gain/g2"]
    assert one["value"] == pytest.approx(arrays["layer_gain"][:, 0].mean())
    assert one["n"] == 3
    assert one["split"] == "test"
    assert results["fusion_slope"]["n"] == 3
    lines = words(arrays)
    assert lines[4].startswith("Over training: ")
    again = measure_fusion(
        run, config=dataclasses.replace(config, over_training=False), images=images
    )
    assert again == results


def test_uniform_attention_planted_into_a_run(
    run: Path, images: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """From the files on: the same run with its queries set to 0."""
    path = tmp_path / "even"
    shutil.copytree(run, path)
    for file in path.rglob("model.safetensors"):
        weights = load_file(file)
        for name in [name for name in weights if ".qkv." in name]:
            weights[name][: len(weights[name]) // 3] = 0
        save_file(weights, file)
        file.with_name("manifest.json").unlink()  # it names the bytes of before
    measure_fusion(path, config=QUICK, images=images)
    assert "--permutations is raised from 20 to 40" in caplog.text
    arrays = Run.open(path).fusion_arrays
    close(arrays, gain=1, twin_mass=1 / 40, self_mass=1 / 40)
    np.testing.assert_allclose(arrays["nn1"], arrays["nn1_uniform"])
    assert words(arrays)[0].startswith("In this network, fusion does not exceed its controls")


def test_a_head_that_does_not_attend(
    images: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    head = HeadConfig(name="mlp", output_size=8)
    config = dataclasses.replace(CONFIG, epochs=1, head=head)
    pretrain(config, tmp_path / "mlp", images, quiet=True)
    over = dataclasses.replace(QUICK, over_training=True)
    results = measure_fusion(tmp_path / "mlp", config=over, images=images)
    assert "--over-training has no effect" in caplog.text
    assert set(results) == {"fusion_nn1/h", "fusion_nn1/g1", "fusion_nn1/z"}
    arrays = Run.open(tmp_path / "mlp").fusion_arrays
    assert arrays["block_taps"].tolist() == []
    assert arrays["nn1"].shape == (3, 3)
    assert np.isnan(arrays["nn1_uniform"]).all()
    assert "gain" not in arrays
    lines = conclusion(arrays, head)
    assert len(lines) == 5
    assert "no attention" in lines[0]
    assert text_table(arrays).splitlines()[0].split() == ["tap", "1-NN", "%"]


def test_batches_are_of_distinct_images_whatever_the_encoder(images: Splits):
    plan = plan_batches(QUICK, images, "shapes", 16)
    assert (plan.split, plan.batch_size, plan.batches) == ("test", 20, 3)
    means = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    extraction = ExtractConfig(augment=augment.resolve(CONFIG.augment, images.train), batch_size=7)
    first, second = (draw_batches(means, plan, extraction) for _ in range(2))
    assert len(first) == 3
    for one, other in zip(first, second, strict=True):
        assert one.h.equal(other.h)
        assert one.h.shape == (40, 3)
        assert not one.h[:20].equal(one.h[20:])
    labels = torch.cat([batch.labels for batch in first]).sort().values
    assert labels.equal(labels_of(images.test).sort().values), "60 images in 3 batches of 20"
    other = plan_batches(dataclasses.replace(QUICK, seed=1), images, "shapes", 16)
    assert not draw_batches(means, other, extraction)[0].h.equal(first[0].h)


def test_fewer_batches_than_asked(images: Splits, caplog: pytest.LogCaptureFixture):
    plan = plan_batches(dataclasses.replace(QUICK, batches=9), images, "shapes", 16)
    assert plan.batches == 3
    assert "3 batches of 20, not 9" in caplog.text
    assert plan_batches(FusionConfig(), images, "shapes", 256).batch_size == 30
    assert plan_batches(FusionConfig(), images, "shapes", 256, least=6).batch_size == 10
    assert plan_batches(QUICK, images, "shapes", 16, least=6).batch_size == 20
    caplog.clear()
    train = dataclasses.replace(QUICK, split="train")
    plan = plan_batches(train, images, "shapes", 16)
    assert (plan.split, plan.images) == ("train", images.train)
    assert not caplog.text
    bare = Splits(images.train, None)
    assert plan_batches(QUICK, bare, "shapes", 16).split == "train"
    assert "training images" in caplog.text


def test_what_cannot_be_asked(run: Path, images: Splits):
    def some(count: int, labels: torch.Tensor | None) -> Splits:
        few = images.train.select(torch.arange(count))
        return Splits(dataclasses.replace(few, labels=labels), None)

    for given, match in (
        (some(20, None), "labels"),
        (some(20, torch.zeros(20, dtype=torch.int64)), "2 classes"),
        (some(6, torch.arange(6) % 2), "give more images"),
    ):
        with pytest.raises(UserError, match=match):
            plan_batches(FusionConfig(), given, "here", 16)
    with pytest.raises(UserError, match="try --batch-size 30"):
        plan_batches(FusionConfig(batch_size=40), images, "shapes", 16)
    with pytest.raises(UserError, match="raise --batch-size"):
        measure_fusion(run, config=FusionConfig(batch_size=4), images=some(20, torch.arange(20)))
    wrong: dict[str, Any]
    for wrong in ({"batch_size": 3}, {"batches": 1}, {"permutations": 0}):
        with pytest.raises(UserError, match="at least"):
            FusionConfig(**wrong)


FLAGS = ("--batch-size", "20", "--batches", "3", "--permutations", "20", "--quiet")


def exit_code(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_command(run: Path, capsys: pytest.CaptureFixture[str]):
    assert exit_code("fusion", run, *FLAGS) == 0
    said = capsys.readouterr().out.splitlines()
    arrays = Run.open(run).fusion_arrays
    assert said[0] == "On builtin:shapes, test images:"
    assert said[1] == "9 steps: too short to judge a head."
    assert tuple(said[2:7]) == conclusion(arrays, CONFIG.head)
    assert f"\n{text_table(arrays)}\n" in "\n".join(said)
    assert said[-2:] == [f"Arrays: {run / 'fusion.npz'}", f"Report: {run / 'report.html'}"]


def test_command_audits_the_head_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]):
    assert exit_code("fusion", run, "--noise-audit") == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[1].startswith("transformer 2 × 16")
    assert said[1].endswith("passes")


def test_command_in_one_line_of_error(run: Path, capsys: pytest.CaptureFixture[str]):
    for words, match in (
        ((run, "--batch-size", "3"), "at least 4"),
        ((run, "--batch-size", "60"), "try --batch-size 30"),
        ((run, "--batches", "1"), "for an interval"),
        ((run, "--batchs", "8"), "--batches"),
        ((run / "nowhere",), "config.json"),
        ((), "fusion needs RUN"),
    ):
        assert exit_code("fusion", *words) == 2
        said = capsys.readouterr().err
        assert match in said
        assert said.count("\n") == 1
