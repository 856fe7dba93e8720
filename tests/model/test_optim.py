import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import Lars
from timm.scheduler import CosineLRScheduler
from torch import nn

from headwise.config import from_dict, to_dict
from headwise.errors import UserError
from headwise.model import optim
from headwise.model.optim import LARS, OptimConfig, build_optimizer, learning_rate, parameter_groups


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )


def train(model, optimizer, steps, first=0, peak=1.0):
    """A short warm-up and cosine: the learning rate moves at every step."""
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, peak=peak, warmup_steps=3, total_steps=12)
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(16, 3, 6, 6, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("warm", "total"), [(0, 10), (3, 10), (1, 2), (40, 400), (9, 10)])
def test_the_schedule_is_timms(warm, total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    oracle = CosineLRScheduler(
        optimizer,
        t_initial=total - warm,
        warmup_t=warm,
        warmup_prefix=True,
        lr_min=0,
        t_in_epochs=False,
    )
    for step in range(total + 3):
        oracle.step_update(step)
        found = learning_rate(step, peak=0.3, warmup_steps=warm, total_steps=total)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(
    warm=st.integers(0, 200),
    rest=st.integers(1, 500),
    peak=st.floats(1e-6, 1e3, allow_nan=False),
)
def test_the_schedule_rises_to_its_peak_then_falls_to_zero(warm, rest, peak):
    rates = [
        learning_rate(step, peak=peak, warmup_steps=warm, total_steps=warm + rest)
        for step in range(warm + rest + 2)
    ]
    assert all(0 <= rate <= peak for rate in rates)
    assert all(a < b for a, b in pairwise(rates[: warm + 1]))
    assert rates[warm] == peak
    assert all(a >= b for a, b in pairwise(rates[warm:]))
    assert rates[-2:] == [0, 0]


def test_a_warmup_as_long_as_the_run_is_an_error():
    with pytest.raises(UserError, match="got 10 of 10 steps; lower warmup_epochs"):
        learning_rate(0, peak=1.0, warmup_steps=10, total_steps=10)


def test_peaks_are_simclrs():
    config = optim.resolve(OptimConfig(lr=0.3, lr_scaling="linear"), 100)
    assert optim.peak_learning_rate(config, 4096) == pytest.approx(4.8)
    assert optim.peak_learning_rate(optim.resolve(OptimConfig(), 100), 4096) == pytest.approx(4.8)


@pytest.mark.parametrize(
    ("config", "decided"),
    [
        (OptimConfig(), (0.075, "sqrt", 1e-6)),
        (OptimConfig(lr=0.3), (0.3, "sqrt", 1e-6)),
        (OptimConfig(name="adamw"), (1e-3, "none", 1e-4)),
        (OptimConfig(name="adamw", lr=0.02, weight_decay=0.0), (0.02, "none", 0.0)),
        (OptimConfig(name="sgd", lr_scaling="linear"), (0.03, "linear", 1e-4)),
    ],
)
def test_what_is_left_open_is_the_optimizers_own(config, decided):
    found = optim.resolve(config, 40)
    assert (found.lr, found.lr_scaling, found.weight_decay) == decided
    assert found.warmup_epochs == 4.0
    if found.name == "adamw":
        assert optim.peak_learning_rate(found, 256) == found.lr


def test_groups_hold_each_trainable_parameter_once_and_spare_norms_and_biases():
    model: Any = timm.create_model("resnet18", num_classes=7)
    for parameter in model.layer1.parameters():
        parameter.requires_grad = False
    decayed, spared = parameter_groups(model, 0.1)
    grouped = [id(p) for group in (decayed, spared) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}
    expected = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("layer1")
    }
    assert {id(p) for p in decayed["params"]} == expected
    assert (decayed["weight_decay"], decayed["adapt"]) == (0.1, True)
    assert (spared["weight_decay"], spared["adapt"]) == (0.0, False)


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("vit_tiny_patch16_224", {"cls_token", "pos_embed"}),
        ("swin_tiny_patch4_window7_224", {"relative_position_bias_table"}),
        ("xcit_nano_12_p16_224", {"cls_token", "pos_embed.token_projection.weight", "temperature"}),
    ],
)
def test_class_tokens_and_position_tables_are_spared(name, spared):
    with torch.device("meta"):
        encoder: Any = timm.create_model(name, num_classes=0)
        model: Any = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(8, 8)})
    names = {id(p): name.removeprefix("encoder.") for name, p in model.named_parameters()}
    decayed, others = (
        {names[id(p)]: p for p in group["params"]} for group in parameter_groups(model, 0.1)
    )
    assert len(decayed) + len(others) == len(names)
    assert {n for n, p in decayed.items() if p.ndim <= 1} == set()
    of_tables = {n for n, p in others.items() if p.ndim > 1}
    assert {n.rpartition("attn.")[2] for n in of_tables} == spared
    # The groups of runs from before, whose optimizer's state is saved in their order.
    old, _ = parameter_groups(model, 0.1, tokens_decayed=True)
    assert {names[id(p)] for p in old["params"]} == set(decayed) | of_tables


def test_shared_parameters_are_grouped_once_and_a_frozen_model_is_an_error():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    model = nn.ModuleList([first, second, nn.Linear(4, 4, bias=False)])
    model[2].weight = first.weight
    (group,) = parameter_groups(model, 0.1)
    assert [id(p) for p in group["params"]] == [id(first.weight), id(second.weight)]
    with pytest.raises(UserError, match="all are frozen"):
        parameter_groups(small_model().requires_grad_(False), 0.1)


def reference_lars(w, gradients, rates, decay, adapt):
    """SimCLR's rule as written in the docstring of `LARS`, in float64 NumPy."""
    v = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        g = g + decay * w
        ratio = 1.0
        if adapt and np.linalg.norm(w) > 0 and np.linalg.norm(g) > 0:
            ratio = 0.001 * np.linalg.norm(w) / np.linalg.norm(g)
        v = 0.9 * v + lr * ratio * g
        w = w - v
    return w


def lars_on(w, gradients, rates, decay, adapt, variant):
    parameter = nn.Parameter(torch.from_numpy(w.copy()))
    group = {"params": [parameter], "weight_decay": decay, "adapt": adapt}
    optimizer = LARS([group], lr=1.0, variant=variant)
    for g, lr in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = torch.from_numpy(g.copy())
        optimizer.step()
        np.testing.assert_array_equal(parameter.grad.numpy(), g)
    return parameter.detach().numpy()


RATES = [0.0, 2.0, 4.0, 3.0, 1.0, 0.2]


def planted(zero: bool = False):
    random = np.random.default_rng(0)
    return np.zeros((4, 3)) if zero else random.normal(size=(4, 3)), random.normal(size=(6, 4, 3))


@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("zero", [True, False])
def test_the_reference_variant_is_simclrs_rule(decay, adapt, zero):
    w, gradients = planted(zero)
    found = lars_on(w, gradients, RATES, decay, adapt, "reference")
    np.testing.assert_allclose(found, reference_lars(w, gradients, RATES, decay, adapt), rtol=1e-12)


def test_the_variants_differ_by_decay_in_the_ratio_and_by_where_the_rate_enters():
    w, gradients = planted()
    results = {}
    for rates in (RATES, [1.0] * 6):
        for decay in (0.0, 0.1):
            a, b = (
                lars_on(w, gradients, rates, decay, True, variant)
                for variant in ("reference", "denominator")
            )
            results[rates[0], decay] = np.abs(a - b).max() / np.abs(a - w).max()
    assert results[1.0, 0.0] < 1e-6  # a constant rate and no decay: one rule
    assert results[1.0, 0.1] > 1e-4
    assert results[0.0, 0.0] > 1e-2


@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.1])
def test_the_denominator_variant_is_timms(decay):
    models = [small_model().double() for _ in range(2)]
    ours = LARS(parameter_groups(models[0], decay), lr=1.0, variant="denominator")
    theirs = [
        Lars(group["params"], lr=1.0, momentum=0.9, weight_decay=group["weight_decay"],
             always_adapt=group["adapt"])
        for group in parameter_groups(models[1], decay)
    ]  # fmt: skip
    for step in range(12):
        rate = learning_rate(step, peak=3.0, warmup_steps=3, total_steps=12)
        x = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(step)).double()
        for model, optimizers in zip(models, ([ours], theirs), strict=True):
            model.zero_grad()
            model(x).square().mean().backward()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_lars_skips_parameters_without_a_gradient_and_calls_a_closure():
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([{"params": [used, unused]}], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4
    assert torch.equal(unused, torch.ones(2, 2))
    torch.testing.assert_close(used.detach(), torch.full((2, 2), 1 - 0.001))


CONFIGS = [
    optim.resolve(OptimConfig(name="sgd", nesterov=True, weight_decay=0.1), 1),
    optim.resolve(OptimConfig(name="adamw", weight_decay=0.1), 1),
    optim.resolve(OptimConfig(name="lars", weight_decay=0.1), 1),
    optim.resolve(OptimConfig(name="lars", lars_variant="denominator"), 1),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.lars_variant}")
def test_stopping_and_resuming_from_a_file_is_bit_identical(config, tmp_path):
    whole = small_model()
    train(whole, build_optimizer(config, whole), 12, peak=0.01)
    model = small_model()
    optimizer = build_optimizer(config, model)
    train(model, optimizer, 5, peak=0.01)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s")
    state = torch.load(tmp_path / "s", weights_only=True)
    model = small_model(seed=1)
    optimizer = build_optimizer(config, model)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    train(model, optimizer, 12, first=5, peak=0.01)
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda c: c.name)
def test_fused_optimizers_are_torchs_plain_ones_in_channels_last_too(config):
    ours = small_model().to(memory_format=torch.channels_last)
    plain = copy.deepcopy(ours)
    groups = parameter_groups(plain, 0.1)
    if config.name == "sgd":
        oracle = torch.optim.SGD(groups, momentum=0.9, nesterov=True, foreach=False)
    else:
        oracle = torch.optim.AdamW(groups, betas=(0.9, 0.999), foreach=False)
    train(ours, build_optimizer(config, ours), 12, peak=0.01)
    train(plain, oracle, 12, peak=0.01)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_weight_decay_shrinks_weights_and_nothing_else():
    model = small_model()
    before = [p.detach().clone() for p in model.parameters()]
    config = OptimConfig(name="sgd", lr=0.5, weight_decay=0.1)
    optimizer = build_optimizer(optim.resolve(config, 1), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (0.95 if old.ndim > 1 else 1.0))


def test_a_config_survives_json_and_refuses_what_cannot_work():
    config = OptimConfig(name="lars", lr=0.3, lr_scaling="linear", betas=(0.9, 0.95))
    assert from_dict(OptimConfig, to_dict(config)) == config
    cases: list[tuple[dict[str, Any], str]] = [
        ({"lr": 0.0}, "lr must be positive; got 0.0"),
        ({"lr": math.nan}, "lr must be positive"),
        ({"momentum": 1.0}, "momentum must lie in"),
        ({"betas": (0.9, 1.0)}, "betas must lie in"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be 0 or more"),
        ({"lars_trust": 0.0}, "lars_trust must be positive"),
        ({"name": "lars", "nesterov": True}, "nesterov needs name sgd"),
    ]
    for wrong, words in cases:
        with pytest.raises(UserError, match=words):
            OptimConfig(**wrong)


@pytest.mark.usefixtures("unchecked")
def test_wrong_choices_name_the_nearest():
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "adam"}, "name cannot be 'adam': did you mean 'adamw'"),
        ({"lr_scaling": "sqr"}, "did you mean 'sqrt'"),
        ({"lars_variant": "referense"}, "did you mean 'reference'"),
    ]
    for wrong, words in cases:
        with pytest.raises(UserError, match=words):
            OptimConfig(**wrong)
