"""What a step minimises."""

import dataclasses
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from narrow import present

from headwise.augment import batch_index
from headwise.cli.main import command_line
from headwise.cli.words import read_words
from headwise.data import DataConfig, Splits, open_images
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.files import write_json
from headwise.heads import HeadConfig
from headwise.losses import (
    affinity_loss,
    contrastive_entropy,
    nt_xent,
    nt_xent_and_accuracy,
    supcon,
)
from headwise.model.build import build_model
from headwise.model.checkpoint import TrainState
from headwise.model.config import OF_OBJECTIVES, PretrainConfig, ResolvedConfig, resolve
from headwise.model.config_file import config_json, read_config
from headwise.model.contrastive import Outputs
from headwise.model.objective import (
    ClassDirectionsConfig,
    ClassTargets,
    Objective,
    class_direction_loss,
    class_targets,
    contrastive,
)
from headwise.model.optim import OptimConfig, build_optimizer
from headwise.pretraining import monitoring, recipes
from headwise.pretraining.loop import pretrain, train_step


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("n", [8, 7])
def test_groups_are_the_loss_of_each_part_weighted_by_its_images(n):
    z0, z1 = normal(n, 5), normal(n, 5, seed=1)
    cut = (n + 1) // 2
    first = nt_xent_and_accuracy(z0[:cut], z1[:cut], 0.3)
    second = nt_xent_and_accuracy(z0[cut:], z1[cut:], 0.3)
    loss, accuracy = contrastive("nt-xent", z0, z1, 0.3, groups=2)
    shares = cut / n, 1 - cut / n
    assert loss.item() == pytest.approx(
        shares[0] * first.loss.item() + shares[1] * second.loss.item(), rel=1e-6
    )
    assert accuracy.item() == pytest.approx(
        shares[0] * first.accuracy.item() + shares[1] * second.accuracy.item(), rel=1e-6
    )
    # Fewer candidates: log of the half's 2n − 1 where all rows are equal.
    flat = torch.ones(8, 5)
    even = contrastive("nt-xent", flat, flat, 0.3, groups=2).loss
    assert even.item() == pytest.approx(torch.tensor(7.0).log().item(), rel=1e-6)


def test_one_group_is_the_loss_itself():
    z0, z1 = normal(6, 5), normal(6, 5, seed=1)
    assert torch.equal(contrastive("nt-xent", z0, z1, 0.3).loss, nt_xent(z0, z1, 0.3))
    loss, accuracy = contrastive("affinity", z0, z0 + 1e-3 * z1, 0.3)
    assert torch.equal(loss, affinity_loss(z0, z0 + 1e-3 * z1))
    assert accuracy == 1


def small(images, **changes) -> ResolvedConfig:
    config = PretrainConfig(
        data=DataConfig(spec="builtin:shapes"),
        # On CPUs without AVX-512, oneDNN corrupts memory in the backward pass of strided 1×1
        # convolutions of fewer than eight channels (torch 2.15).
        encoder=EncoderConfig(name=recipes.SMALL_RESNET, stem="small-strided", widths=(8, 8, 8, 8)),
        batch_size=16,
        epochs=1,
        precision="float32",
        knn_every=0,
        **changes,
    )
    return resolve(config, images)


@pytest.fixture(scope="module")
def images():
    return open_images(DataConfig(spec="builtin:shapes", limit=64))


def test_class_directions_use_the_asked_share_of_the_labels_of_every_class(images):
    config = ClassDirectionsConfig(fraction=0.5, weight=2.0)
    target = present(class_targets(config, images.train, 16, seed=0))
    known = target.labels >= 0
    assert torch.equal(target.labels[known], images.train.labels[known])
    counts = target.labels[known].bincount(minlength=len(images.train.classes))
    assert counts.sum() == pytest.approx(len(images.train) / 2, abs=len(counts))
    assert counts.max() - counts.min() <= 1
    assert class_targets(ClassDirectionsConfig(), images.train, 16, seed=0) is None
    # On the direction of its class every known image costs −1 times the weight, the least.
    index = torch.arange(8)
    z = present(target.directions)[images.train.labels[index]].repeat(2, 1)
    expected = -2.0 if known[:8].any() else 0.0
    assert class_direction_loss(target.at(index), z).item() == pytest.approx(expected, abs=1e-5)


def test_a_step_adds_the_class_directions_of_its_own_images(images):
    config = small(images.train, class_directions=ClassDirectionsConfig(fraction=1.0, weight=0.5))
    model = build_model(config)
    state = TrainState(model, build_optimizer(config.optim, model))
    target = present(class_targets(config.class_directions, images.train, 128, config.seed))
    views = normal(32, 3, 32, 32).float()
    again = build_model(config)
    with torch.no_grad():
        z = again.train()(views).z
        z0, z1 = z.chunk(2)
        plain = nt_xent(z0, z1, config.temperature)
        index = batch_index(len(images.train), 16, 0, config.seed)
        own = images.train.labels[index].repeat(2)
        unit = torch.nn.functional.normalize(z)
        pull = -0.5 * (unit * present(target.directions)[own]).sum(1).mean()
    loss = train_step(config, state, views, 1e-3, target.at(index))[1]
    assert loss.item() == pytest.approx((plain + pull).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fraction": 1.5}, "class-directions.fraction must be from 0 to 1; got 1.5"),
        ({"fraction": 0.5, "weight": 0.0}, "class-directions.weight must be positive; got 0.0"),
    ],
)
def test_wrong_class_directions(values, message):
    with pytest.raises(UserError, match=message):
        ClassDirectionsConfig(**values)


def test_class_directions_need_labels(images):
    unlabelled = dataclasses.replace(images.train, labels=None, classes=())
    with pytest.raises(UserError, match="needs labelled training images"):
        class_targets(ClassDirectionsConfig(fraction=0.1), unlabelled, 16, seed=0)


def test_halves_need_two_images_each():
    with pytest.raises(UserError, match=r"batch-size must be at least 4 with head\.context halves"):
        PretrainConfig(batch_size=2, head=HeadConfig(name="transformer", context="halves"))


@pytest.mark.parametrize("name", ["deepfusion", "deepfusion-first", "deepfusion-later"])
def test_the_published_variants_train(name, images, tmp_path):
    """Their heads and losses for two steps on a small encoder: finite, and they say so."""
    head = dataclasses.replace(recipes.recipe(name).head, depth=2)
    config = small(images.train, head=head, temperature=recipes.recipe(name).temperature)
    run = pretrain(config, tmp_path / "run", images, quiet=True)
    assert run.metrics()[-1]["loss"] > 0


@pytest.mark.parametrize("context", ["joint", "halves"])
def test_transfusion_and_halves_learn(context, images, tmp_path):
    objective = "affinity" if context == "joint" else "nt-xent"
    head = HeadConfig(name="transfusion", depth=2, width=16, output_size=16, context=context)
    config = dataclasses.replace(small(images.train, head=head, objective=objective), epochs=30)
    run = pretrain(config, tmp_path / "run", images, quiet=True)
    found = run.metrics()
    assert found[-1]["loss"] < found[0]["loss"]
    assert max(record["contrastive_accuracy"] for record in found) > 3 / 31


@pytest.mark.parametrize("objective", get_args(Objective))
def test_parts_of_a_batch_have_their_own_loss_with_every_objective(objective: Objective) -> None:
    """Two forms side by side, and two groups of images, with the labels of each."""
    z0, z1, labels = normal(7, 10), normal(7, 10, seed=1), torch.tensor([0, 1, 0, -1, 2, 1, 3])
    found = contrastive(objective, z0, z1, 0.3, target=ClassTargets(labels), groups=2, forms=2)
    expected = torch.zeros(2).double()
    for columns in (slice(5), slice(5, 10)):
        for rows, share in ((slice(4), 4 / 7), (slice(4, 7), 3 / 7)):
            a, b = z0[rows, columns], z1[rows, columns]
            own = contrastive(objective, a, b, 0.3, target=ClassTargets(labels[rows]))
            expected += share / 2 * torch.stack([own.loss, own.accuracy.double()])
    torch.testing.assert_close(torch.stack([*map(torch.Tensor.double, found)]), expected)


def test_the_entropy_is_logged_with_a_temperature(images, tmp_path):
    """For each half of the batch where the candidates are those of the half."""
    head = HeadConfig(name="transformer", depth=1, width=16, num_heads=2, context="halves")
    config = small(images.train, head=head)
    run = pretrain(config, tmp_path / "run", images, quiet=True)
    assert 0 < run.metrics()[-1]["contrastive_entropy"] <= math.log(15)
    z0, z1 = normal(8, 4), normal(8, 4, seed=1)
    outputs = Outputs(torch.cat([z0, z1]), torch.cat([z0, z1]))
    first, second = (contrastive_entropy(z0[a], z1[a], 0.5) for a in (slice(4), slice(4, 8)))
    found = monitoring.softmax_entropy(outputs, config)["contrastive_entropy"]
    assert found == pytest.approx((first + second).item() / 2)
    plain = dataclasses.replace(config, objective="affinity")
    assert monitoring.softmax_entropy(outputs, plain) == {}


@pytest.mark.parametrize("objective", ["supcon", "cross-entropy"])
def test_a_step_takes_the_labels_of_its_own_images(objective, images):
    """And steps on the same views learn them. With cross-entropy z has a column for each class."""
    head = HeadConfig(name="linear", batch_norm=False)
    optim = OptimConfig(name="adamw")
    config = small(images.train, head=head, objective=objective, optim=optim)
    classes = len(images.train.classes)
    assert config.head.output_size == (classes if objective == "cross-entropy" else 128)
    model = build_model(config)
    state = TrainState(model, build_optimizer(config.optim, model))
    views = normal(32, 3, 32, 32).float()
    z0, z1 = build_model(config).train()(views).z.chunk(2)
    index = batch_index(len(images.train), 16, 0, config.seed)
    labels = images.train.labels[index]
    expected = F.cross_entropy(torch.cat([z0, z1]), labels.repeat(2))
    if objective == "supcon":
        expected = supcon(z0, z1, labels, config.temperature)
    directions = config.class_directions
    target = present(class_targets(directions, images.train, 8, 0, config.objective)).at(index)
    losses = [train_step(config, state, views, 1e-2, target)[1].item() for _ in range(20)]
    assert losses[0] == pytest.approx(expected.item(), rel=1e-5)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("objective", ["supcon", "cross-entropy"])
def test_objectives_with_labels_need_them(objective, images, tmp_path):
    unlabelled = dataclasses.replace(images.train, labels=None, classes=())
    config = PretrainConfig(objective=objective, batch_size=16)
    with pytest.raises(UserError, match=f"--objective {objective} needs labelled training images"):
        pretrain(config, tmp_path / "run", unlabelled)
    assert not (tmp_path / "run").exists()


def test_another_objective_than_the_files_starts_from_its_own_settings(tmp_path):
    config = PretrainConfig(objective="margin", negatives="semi-hard", margin=0.2)
    write_json(tmp_path / "config.json", config_json(config))
    words = ["--config", str(tmp_path / "config.json"), "--out", "out"]

    def read(*more: str) -> PretrainConfig:
        return read_words(command_line("pretrain"), [*words, *more]).command().pretrain

    assert read() == config
    # A file from before these settings has what there was.
    old = {**config_json(PretrainConfig())}
    for name in OF_OBJECTIVES:
        del old[name]
    write_json(tmp_path / "old.json", old)
    assert read_config(PretrainConfig, tmp_path / "old.json") == PretrainConfig()
    assert read("--objective", "margin") == config
    assert read("--objective", "nt-xent") == PretrainConfig()
    assert read("--objective", "nt-logistic").negatives == "all"


def test_a_run_keeps_its_groups_apart(tiny, tmp_path):
    """Images in groups of eight, the whole of a batch: there are no negatives, so the loss is 0."""
    images = open_images(dataclasses.replace(tiny.data, limit=16)).train
    config = dataclasses.replace(tiny, exclude_group=True, batch_size=8, epochs=1, knn_every=0)
    alone = dataclasses.replace(images, groups=torch.zeros(len(images), dtype=torch.int64))
    run = pretrain(config, tmp_path / "alone", Splits(alone, None), quiet=True)
    assert [line["loss"] for line in run.metrics()] == [0.0]
    apart = dataclasses.replace(images, groups=torch.arange(len(images)))
    losses = [
        pretrain(c, tmp_path / name, Splits(apart, None), quiet=True).metrics()[-1]["loss"]
        for name, c in (
            ("apart", config),
            ("plain", dataclasses.replace(config, exclude_group=False)),
        )
    ]
    assert losses[0] == losses[1] > 0
    with pytest.raises(UserError, match="needs images in groups"):
        pretrain(config, tmp_path / "none", Splits(images, None), quiet=True)
    assert not (tmp_path / "none").exists()
