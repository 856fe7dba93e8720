"""Configs to and from JSON: nothing lost, nothing guessed."""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.augment import AugmentConfig
from headwise.comparison.compare import CompareConfig
from headwise.config import from_dict, to_dict
from headwise.data import DataConfig
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig
from headwise.fusion.config import FusionConfig
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.model.optim import OptimConfig


def through_json(config):
    return from_dict(type(config), json.loads(json.dumps(to_dict(config), allow_nan=False)))


def settings_of(**values):
    """Some of these settings: a config's own defaults are left in place for the others."""
    return st.fixed_dictionaries({}, optional=values)


probabilities = st.floats(0, 1)
augments = settings_of(
    size=st.none() | st.integers(8, 512),
    crop_scale=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
    flip=probabilities,
    blur=st.none() | probabilities,
    strength=st.none() | st.floats(0, 2),
    mean=st.none() | st.tuples(probabilities, probabilities, probabilities),
)
heads = st.one_of(
    settings_of(depth=st.none() | st.integers(1, 4), batch_norm=st.booleans()),
    settings_of(name=st.just("mlp"), shift=st.booleans()),
    st.fixed_dictionaries(
        {"name": st.just("transformer")},
        optional={
            "ratio": st.floats(0.5, 8),
            "norm": st.sampled_from(["pre", "post"]),
            "context": st.sampled_from(["joint", "per-view", "self", "twin-masked"]),
        },
    ),
)
encoders = settings_of(
    name=st.text(),
    stem=st.sampled_from(["auto", "standard", "small", "small-strided"]),
    depths=st.none() | st.lists(st.integers(1, 9), min_size=4, max_size=4).map(tuple),
)
whole = settings_of(
    epochs=st.integers(1),
    temperature=st.floats(1e-6, 1e6),
    seed=st.integers(0, 2**62),
    workers=st.none() | st.integers(0, 64),
    device=st.sampled_from(["auto", "cpu", "cuda", "mps"]),
)


@settings(deadline=None, max_examples=60)
@given(
    data=settings_of(spec=st.text(), limit=st.none() | st.integers(1), cache=st.booleans()),
    augment=augments,
    encoder=encoders,
    head=heads,
    optim=settings_of(name=st.sampled_from(["sgd", "adamw", "lars"]), lr=st.floats(1e-9, 10)),
    whole=whole,
)
def test_a_config_survives_json(data, augment, encoder, head, optim, whole):
    config = PretrainConfig(
        data=DataConfig(**data),
        augment=AugmentConfig(**augment),
        encoder=EncoderConfig(**encoder),
        head=HeadConfig(**head),
        optim=OptimConfig(**optim),
        **whole,
    )
    again = through_json(config)
    assert again == config
    assert hash(again) == hash(config)  # tuples came back as tuples


def test_every_setting_is_written():
    written = to_dict(PretrainConfig())
    assert set(written) == {f.name for f in dataclasses.fields(PretrainConfig)}
    assert set(written["head"]) == {f.name for f in dataclasses.fields(HeadConfig)}
    assert written["augment"]["crop_scale"] == [0.08, 1.0]
    assert written["workers"] is None


def test_missing_keys_keep_their_defaults():
    assert from_dict(PretrainConfig, {}) == PretrainConfig()
    config = from_dict(PretrainConfig, {"head": {"name": "linear"}, "epochs": 7})
    assert config == PretrainConfig(head=HeadConfig(name="linear"), epochs=7)


@dataclass(frozen=True, kw_only=True)
class Inner:
    pair: tuple[int, float] = (1, 0.5)
    many: tuple[int, ...] = ()
    choice: Literal["red", "green", 3] = "red"


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    number: float = 1.0
    count: int = 1
    perhaps: int | None = None
    flag: bool = False
    word: str = ""


@pytest.mark.parametrize(
    "values",
    [
        {"inner": {"pair": [3, 0.25], "many": [1, 2, 3], "choice": 3}},
        {"inner": {"pair": (3, 1), "many": []}},
        {"number": 2, "perhaps": None, "flag": True, "word": "τ"},
        {"perhaps": 4},
    ],
    ids=str,
)
def test_values_of_the_right_type_are_taken(values):
    config = from_dict(Outer, values)
    assert through_json(config) == config
    assert type(config.number) is float
    assert type(config.inner.pair) is type(config.inner.many) is tuple
    assert type(config.inner.pair[1]) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"cuont": 1},
            r"config has an unknown key 'cuont': did you mean 'count'\? Choices: inner,",
        ),
        ({"inner": {"man": []}}, r"config\.inner has an unknown key 'man': did you mean 'many'\?"),
        ({"zzz": 1}, r"config has an unknown key 'zzz': Choices: inner, number"),
        ({"count": 1.0}, r"config\.count must be of type int; got 1\.0"),
        ({"count": "1"}, r"config\.count must be of type int; got '1'"),
        ({"count": True}, r"config\.count must be of type int; got True"),
        ({"count": None}, r"config\.count must be of type int; got None"),
        ({"number": "1.0"}, r"config\.number must be of type float; got '1\.0'"),
        ({"number": True}, r"config\.number must be of type float; got True"),
        ({"perhaps": 1.5}, r"config\.perhaps must be of type int; got 1\.5"),
        ({"flag": 1}, r"config\.flag must be of type bool; got 1"),
        ({"word": 1}, r"config\.word must be of type str; got 1"),
        ({"inner": 3}, r"config\.inner must be an object of settings; got 3"),
        ({"inner": None}, r"config\.inner must be an object of settings; got None"),
        ({"inner": {"pair": 3}}, r"config\.inner\.pair must be a list; got 3"),
        ({"inner": {"pair": [1]}}, r"config\.inner\.pair must have 2 values; got \[1\]"),
        ({"inner": {"pair": ["a", 1]}}, r"config\.inner\.pair must be of type int; got 'a'"),
        ({"inner": {"many": [1, 2.5]}}, r"config\.inner\.many must be of type int; got 2\.5"),
        ({"inner": {"many": "12"}}, r"config\.inner\.many must be a list; got '12'"),
        ({"inner": {"choice": "gren"}}, r"choice cannot be 'gren': did you mean 'green'\? Choices"),
        ({"inner": {"choice": [1]}}, r"choice cannot be \[1\]: Choices: red, green, 3"),
        ([], r"config must be an object of settings; got \[\]"),
    ],
    ids=str,
)
def test_anything_else_is_an_error_that_says_where(values, message):
    with pytest.raises(UserError, match=message) as caught:
        from_dict(Outer, values)
    assert "\n" not in str(caught.value)


def test_the_source_is_named():
    with pytest.raises(UserError, match=r"^runs/a/config\.json\.head has an unknown key 'nam'"):
        from_dict(PretrainConfig, {"head": {"nam": "mlp"}}, "runs/a/config.json")


def test_checks_of_the_configs_themselves_hold_for_json_too():
    with pytest.raises(UserError, match=r"--epochs must be at least 1; got 0"):
        from_dict(PretrainConfig, {"epochs": 0})
    with pytest.raises(UserError, match=r"head\.depth is not a setting of the linear head"):
        from_dict(PretrainConfig, {"head": {"name": "linear", "depth": 3}})


def configs_in(kind: type) -> set[type]:
    """A config and all that stand in its fields."""
    hints = typing.get_type_hints(kind).values()
    return {kind}.union(*(configs_in(hint) for hint in hints if dataclasses.is_dataclass(hint)))


CONFIGS = [
    kind
    for root in (CompareConfig, EvaluateConfig, FusionConfig)
    for kind in sorted(configs_in(root), key=str)
]


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_config_refuses_what_a_field_cannot_hold(unchecked: None, kind: type) -> None:
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            continue
        for wrong in ([object()], object()):
            with pytest.raises(UserError, match=f"^{kind.__name__}.{name} ") as caught:
                kind(**{name: wrong})
            assert "\n" not in str(caught.value)
    word = next((n for n, h in typing.get_type_hints(kind).items() if "Literal" in str(h)), None)
    if word:
        with pytest.raises(UserError, match=r"Choices: [\w-]+, "):
            kind(**{word: ("no such word",) if "tuple" in str(kind.__annotations__[word]) else "x"})


def test_a_config_takes_lists_and_paths(unchecked: None, tmp_path: Path) -> None:
    assert DataConfig(spec=typing.cast(str, tmp_path)).spec == str(tmp_path)
    given = EvaluateConfig(taps=typing.cast(tuple, ["h"]), against=typing.cast(Path, "runs/a"))
    assert given == EvaluateConfig(taps=("h",), against=Path("runs/a"))
    with pytest.raises(UserError, match=r"HeadConfig.context .* did you mean 'per-view'\?"):
        HeadConfig(name="transformer", context=typing.cast(typing.Any, "perview"))
