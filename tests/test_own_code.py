"""Heads, losses, encoders and operators of the user's own, from Python and by command line."""

import dataclasses
import functools
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headwise.augment import AugmentConfig
from headwise.augment.views import made_in_c
from headwise.cli import main as cli
from headwise.cli.words import read_words
from headwise.comparison.compare import CompareConfig, compare, resume_comparison
from headwise.comparison.elsewhere import compare_runs
from headwise.encoders.build import EncoderConfig
from headwise.errors import UserError
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.heads import HeadConfig, build_head
from headwise.heads.blocks import Block
from headwise.model.config import PretrainConfig
from headwise.model.export import load_encoder
from headwise.model.noise_audit import noise_audit
from headwise.model.own_parts import open_run, own_parts
from headwise.model.trained import load_config
from headwise.own_code import Handed, own
from headwise.pretraining.loop import pretrain, resume
from headwise.pretraining.recipes import recipe
from headwise.runs.directory import Run

EXAMPLES = Path(__file__).parents[1] / "examples"
HEAD = """
from torch import nn

def build(p, width=16):
    return [nn.Sequential(nn.Linear(p, width), nn.ReLU()), nn.Linear(width, 8)]
"""
DIGITS = [
    *("--data", "builtin:digits", "--limit", "60", "--augment.size", "8", "--epochs", "1"),
    *("--batch-size", "20", "--encoder", "resnet-small", "--encoder.widths", "8", "8", "16", "16"),
    *("--device", "cpu", "--quiet"),
]
KNN = EvaluateConfig(protocols=("knn",), taps=("h", "z"), baselines=False)


@pytest.fixture
def brief(tiny: PretrainConfig) -> PretrainConfig:
    return dataclasses.replace(tiny, epochs=1, knn_every=0)


@pytest.fixture
def quick_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(noise_audit, images=8, steps=60, trials=40)
    monkeypatch.setattr("headwise.model.noise_audit.noise_audit", quick)


def command(*words: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that a command says when it refuses."""
    capsys.readouterr()
    assert command(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def layers(p: int, width: int = 8) -> list[nn.Module]:
    return [nn.Linear(p, width), nn.Dropout(), nn.Linear(width, 4)]


def spread(z0: Tensor, z1: Tensor, weight: float = 1.0) -> Tensor:
    return (z0 - z1).square().mean() - weight * z0.var(0).mean()


def flat(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, width))


def speckled(views: Tensor, generator: torch.Generator, strength: float = 0.1) -> Tensor:
    return views + strength * torch.randn(views.shape, generator=generator)


# The command line.


def test_an_own_head_from_pretraining_to_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(HEAD)
    words = ["--head", "mine.py:build", "--head.settings", "width=12", "--out", "run"]
    assert command("pretrain", *DIGITS, *words) == 0
    head = json.loads(Path("run/config.json").read_text())["head"]
    assert head["own"] == {
        "file": "mine.py",
        "function": "build",
        "sha256": own("mine.py:build").sha256,
        "settings": {"width": 12},
    }
    assert (head["name"], head["output_size"], head["context"]) == ("own", 8, "self")
    assert Path("run/code/head.py").read_text() == HEAD

    measure = ["evaluate", "run", "--protocols", "knn", "--taps", "h", "g1", "z", "--no-baselines"]
    line = said(capsys, *measure)
    assert "--head mine.py:build" in line
    assert "--allow-code" in line
    assert "open_run(RUN, head=" in line
    assert command(*measure, "--head", "mine.py:build") == 0
    assert {"knn/g1", "knn/z"} <= Run(Path("run")).sections[0].results.keys()
    # The encoder alone needs no code.
    assert command("embed", "run", "builtin:digits", "--limit", "8", "--out", "t.parquet") == 0

    Path("mine.py").write_text(HEAD + "\n# changed\n")
    assert "its source has changed" in said(capsys, *measure, "--head", "mine.py:build")
    Path("mine.py").unlink()
    assert "does not exist" in said(capsys, *measure, "--head", "mine.py:build")
    assert "--allow-code" in said(capsys, *measure)
    assert command(*measure, "--allow-code") == 0
    Path("mine.py").write_text(HEAD)
    longer = ["pretrain", "--extend", "run", "--epochs", "2", "--head", "mine.py:build", "--quiet"]
    assert command(*longer, "--out", "longer") == 0
    again = ["pretrain", "--config", "run/config.json", "--allow-code", "--quiet"]
    assert command(*again, "--out", "again") == 0
    for out in ("longer", "again"):
        head = json.loads(Path(out, "config.json").read_text())["head"]["own"]
        assert head["settings"] == {"width": 12}
        assert Path(out, "code", "head.py").read_text() == HEAD
    assert "is headwise's" in said(capsys, *measure, "--encoder", "run/code/head.py:build")


def test_a_run_that_somebody_sent_executes_nothing(
    brief: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(HEAD)
    pretrain(brief, out, head=f"{file}:build", quiet=True)
    mark = tmp_path / "executed"
    copy = out / "code" / "head.py"
    copy.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{HEAD}")
    for words in (["evaluate", out], ["fusion", out], ["pretrain", "--resume", out]):
        (out / "DONE").touch()
        if words[0] == "pretrain":
            (out / "DONE").unlink()
        assert "--allow-code" in said(capsys, *words)
    assert "it is not executed" in said(capsys, "pretrain", "--resume", out, "--allow-code")
    assert not mark.exists()
    # With a digest that fits, it is what --allow-code allows.
    config = json.loads((out / "config.json").read_text())
    config["head"]["own"]["sha256"] = own(f"{copy}:build").sha256
    assert mark.exists()


def test_resuming_with_the_code_gives_the_same_run(brief: PretrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(brief, epochs=2, augment=AugmentConfig(size=8, own=own(speckled)))
    whole = pretrain(config, tmp_path / "whole", head=layers, loss=spread, quiet=True)
    shutil.copytree(whole.path, tmp_path / "stopped")
    (tmp_path / "stopped" / "DONE").unlink()
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-00000006")
    with pytest.raises(UserError, match=r"augment.*handed over again"):
        resume(open_run(tmp_path / "stopped", head=layers, loss=spread))
    stopped = open_run(tmp_path / "stopped", head=layers, loss=spread, augment=speckled)
    resume(stopped, quiet=True)
    assert [r["loss"] for r in stopped.metrics()] == [r["loss"] for r in whole.metrics()]
    files = [run.path / "encoder.safetensors" for run in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()


# From Python.


def test_functions_handed_over(brief: PretrainConfig, tmp_path: Path) -> None:
    loss = own(spread, weight=0.5)
    run = pretrain(brief, tmp_path / "run", head=layers, encoder=flat, loss=loss, quiet=True)
    assert {path.name for path in (run.path / "code").iterdir()} == {
        "encoder.py",
        "head.py",
        "objective.py",
    }
    config = load_config(run)
    assert config.own_objective is not None
    assert config.own_objective.settings == {"weight": 0.5}
    results = evaluate(run, config=KNN)
    again = open_run(run.path, head=layers, encoder=flat)
    assert evaluate(again, config=KNN)["knn/z"].value == results["knn/z"].value
    with pytest.raises(UserError, match="encoder is code of its own"):
        load_encoder(run.path)
    assert load_encoder(again)(torch.zeros(2, 3, 8, 8)).shape == (2, 8)
    with pytest.raises(UserError, match="another function"):
        open_run(run.path, head=flat)
    with pytest.raises(UserError, match="settings of its run"):
        open_run(run.path, head=own(layers, width=3))


def test_modules_and_lambdas_handed_over(brief: PretrainConfig, tmp_path: Path) -> None:
    head = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    start = {name: value.clone() for name, value in head.state_dict().items()}
    encoder = flat()
    run = pretrain(
        brief,
        tmp_path / "run",
        head=head,
        encoder=encoder,
        loss=lambda z0, z1: (z0 - z1).square().mean(),
        quiet=True,
    )
    assert all(value.equal(start[name]) for name, value in head.state_dict().items())
    config = load_config(run)
    assert config.encoder.own is not None
    assert config.encoder.own.function == "torch.nn.modules.container.Sequential"
    assert config.own_objective is not None
    assert config.own_objective.function.endswith("<lambda>")
    assert config.own_objective.file is None
    value = evaluate(run, config=KNN)["knn/z"].value
    with pytest.raises(UserError, match=r"in Python, open_run\(RUN, head=…\)"):
        evaluate(open_run(run.path, encoder=encoder, allow_code=True), config=KNN)
    again = open_run(run.path, head=head, encoder=encoder)
    assert evaluate(again, config=KNN)["knn/z"].value == value


def test_a_model_that_timm_was_given(brief: PretrainConfig, tmp_path: Path) -> None:
    import timm

    file = tmp_path / "registering.py"
    file.write_text(
        "from torch import nn\nfrom timm.models import register_model\n@register_model\n"
        "def own_flat_net(pretrained=False, num_classes=0, **others):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8))\n"
        "    return model\n"
    )
    code = own(f"{file}:own_flat_net")
    assert timm.is_model("own_flat_net")
    encoder = EncoderConfig(name="own_flat_net")
    run = pretrain(dataclasses.replace(brief, encoder=encoder), tmp_path / "run", quiet=True)
    assert evaluate(run.path, config=KNN)["knn/h"].n
    assert load_encoder(run.path)(torch.zeros(1, 3, 8, 8)).shape == (1, 8)
    # A process that has not registered it hands the file over.
    assert open_run(run.path, encoder=code).handed.encoder == code


def test_an_own_operator_is_a_function_of_place(brief: PretrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(brief, augment=AugmentConfig(size=8, own=own(speckled)))
    run = pretrain(config, tmp_path / "run", quiet=True)
    resolved = load_config(run).augment
    assert resolved.ops[-1] == "own"
    assert not made_in_c(resolved, "cpu")
    with pytest.raises(UserError, match="must draw from the generator that it is given"):
        pretrain(brief, tmp_path / "x", augment=lambda views, _: views + torch.rand(1), quiet=True)
    assert not (tmp_path / "x").exists()


def test_an_own_head_is_compared(brief: PretrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(brief, head=HeadConfig(own=own(layers, width=6)))
    arms, out = ("identity", "own"), tmp_path / "out"
    compare(CompareConfig(pretrain=config, arms=arms, seeds=1, scratch=False), out, quiet=True)
    assert (out / "code" / "head.py").read_bytes() == Path(__file__).read_bytes()
    assert own_parts(load_config(Run(out / "own-seed0")))["head"].settings == {"width": 6}
    with pytest.raises(UserError, match="the head is code of its own"):
        resume_comparison(out, quiet=True)
    summary = resume_comparison(out, handed=Handed(head=own(layers)), quiet=True)
    assert {*summary["runs"]} == {*arms}
    again = [out / f"{arm}-seed0" for arm in arms]
    with pytest.raises(UserError, match="the head is code of its own"):
        compare_runs(again, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# The noise audit.


class Twins(nn.Module):
    """Each row becomes the mean of itself and its twin."""

    def forward(self, rows: Tensor) -> Tensor:
        return (rows + rows.roll(len(rows) // 2, 0)) / 2


class Swapped(nn.Module):
    """Each row becomes its twin's."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows.roll(len(rows) // 2, 0)


class InTraining(nn.Module):
    """Sees the batch in training alone, behind a gate that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.gate * rows.roll(len(rows) // 2, 0) if self.training else rows


class Honest(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(0)


@pytest.mark.usefixtures("quick_audit")
@pytest.mark.parametrize(
    ("layer", "words"),
    [(Twins, "leaks (on independent noise"), (Swapped, "may leak"), (InTraining, "leak")],
)
def test_a_head_that_copies_the_twins_row_is_refused(
    layer: type[nn.Module], words: str, brief: PretrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        pretrain(brief, tmp_path / "run", head=lambda p: [nn.Linear(p, 8), layer()], quiet=True)
    assert words in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick_audit")
def test_an_honest_head_that_sees_the_batch_passes(brief: PretrainConfig, tmp_path: Path) -> None:
    run = pretrain(
        brief, tmp_path / "run", head=lambda p: [nn.Linear(p, 8), nn.Dropout(), Honest()]
    )
    assert load_config(run).head.context == "joint"


def test_own_heads_may_have_headwises_blocks() -> None:
    config = HeadConfig(own=own(lambda p: [Block(p, num_heads=2), nn.Linear(p, 4)]))
    head = build_head(config, 8)
    assert head.block_taps == ("g1",)
    assert head.batch_aware
    (weights,) = head.attention(torch.randn(6, 8), views=2)
    assert weights.shape == (1, 2, 6, 6)


# Wrong code.

WRONG = {
    "size": ("def f(p): return [nn.Linear(p + 1, 8)]", "raised RuntimeError"),
    "rows": ("def f(p): return [Layer(lambda x: x[1:])]", "a vector for each row"),
    "nan": (
        "def f(p): return [Layer(lambda x: x / 0)]",
        "finite numbers; got NaN or infinity at z",
    ),
    "layers": ("def f(p): return [3]", "a list of layers (nn.Module); got int"),
    "raises": ("def f(p): raise KeyError('x')", "raised KeyError: 'x'"),
    "settings": (
        "def f(p, depth=1, width=2): return []",
        "no setting 'widht': did you mean 'width'",
    ),
    "name": ("def g(p): return []", "must have a function 'f' at its top level"),
    "import": ("import nothing_like_it", "No module named 'nothing_like_it'"),
    "syntax": ("def f(p: return", "SyntaxError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
}
LAYER = """
from torch import nn
class Layer(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f
    def forward(self, x):
        return self.f(x)
"""


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_heads(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = WRONG[name]
    (tmp_path / "wrong.py").write_text(LAYER + code)
    given = ["--head", f"{tmp_path / 'wrong.py'}:f", "--out", tmp_path / "run"]
    given += ["--head.settings", "widht=3"] if name == "settings" else []
    assert words in said(capsys, "pretrain", *DIGITS, *given)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"loss": lambda z0, z1: (z0 - z1).square().sum(1)}, "must return one number"),
        ({"loss": lambda z0, z1: 3.0}, "got float"),
        ({"loss": lambda z0, z1: z0.sum() / 0}, "must be finite"),
        ({"loss": lambda z0, z1: torch.zeros(())}, "must have a gradient"),
        ({"loss": nn.Bilinear(8, 8, 1)}, "must have no parameters"),
        ({"loss": lambda z0: z0.sum()}, "must take 2 arguments"),
        ({"encoder": lambda: nn.Sequential(nn.Flatten(), nn.Linear(99, 4))}, "images of 8 px"),
        ({"encoder": lambda: nn.Conv2d(3, 4, 1)}, "must give a vector for each image"),
        ({"encoder": lambda: nn.Flatten()}, "must be a module with parameters"),
        ({"augment": lambda views, generator: views[:, :1]}, "as many views of the same size"),
        ({"head": "wrong.txt"}, "must be named as FILE:function"),
        ({"head": 3}, "must be a function, a module or the words FILE:function; got int"),
    ],
)
def test_wrong_parts(
    parts: dict[str, Any], words: str, brief: PretrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        pretrain(brief, tmp_path / "run", quiet=True, **parts)
    assert not (tmp_path / "run").exists()


# The examples.

PARTS = {
    "own_head.py": ("--head", "build"),
    "own_loss.py": ("--objective", "align_uniform"),
    "own_encoder.py": ("--encoder", "build"),
    "own_batchformer.py": ("--head", "build"),
}


@pytest.mark.parametrize("example", PARTS)
@pytest.mark.usefixtures("quick_audit")
def test_examples_on_the_command_line(
    example: str, headwise: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """Every command is a process of its own."""
    (flag, function), out = PARTS[example], tmp_path / "run"
    file = shutil.copy(EXAMPLES / example, tmp_path)
    given = [flag, f"{file}:{function}"]
    others = DIGITS[:10] + DIGITS[17:] if flag == "--encoder" else DIGITS
    done = headwise("pretrain", *others, *given, "--out", out)
    assert done.returncode == 0, done.stderr
    later = ["pretrain", "--resume", out] if flag == "--objective" else MEASURED.format(out).split()
    if flag == "--objective":
        (out / "DONE").unlink()
        shutil.rmtree(out / "checkpoints")
    Path(file).unlink()
    refused = headwise(*later)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"{given[0]} {given[1]}" in refused.stderr
    shutil.copy(EXAMPLES / example, tmp_path)
    done = headwise(*later, *given)
    assert done.returncode == 0, done.stderr


MEASURED = "evaluate {} --protocols knn --taps h z --no-baselines"


@pytest.mark.parametrize("example", PARTS)
@pytest.mark.usefixtures("quick_audit")
def test_examples_in_python(
    example: str,
    brief: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("headwise.pretraining.recipes.recipe", lambda name: brief)
    monkeypatch.setattr("sys.argv", [example, "--out", str(tmp_path / "run"), "--epochs", "1"])
    runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    assert "knn/z" in capsys.readouterr().out
    config = load_config(Run(tmp_path / "run"))
    codes = [config.head.own, config.encoder.own, config.own_objective]
    assert {code.file for code in codes if code is not None} == {str(EXAMPLES / example)}
    assert len((EXAMPLES / example).read_text().splitlines()) <= 80


# Another head than the recipe's.


@pytest.mark.parametrize(
    ("words", "head", "encoder"),
    [
        ("--head mlp", HeadConfig(), None),
        ("--head transformer", None, None),
        ("--head linear --head.output-size 4", HeadConfig(name="linear", output_size=4), None),
        ("--encoder resnet18", None, EncoderConfig(stem="small-strided")),
        ("--encoder vit_tiny_patch16_224", None, EncoderConfig(name="vit_tiny_patch16_224")),
    ],
)
def test_another_part_than_the_recipes_has_its_own_settings(
    words: str, head: HeadConfig | None, encoder: EncoderConfig | None
) -> None:
    given = read_words(cli.command_line("pretrain"), ["--recipe", "demo", *words.split()])
    config = given.command().pretrain
    assert config.head == (head or recipe("demo").head)
    assert config.encoder == (encoder or recipe("demo").encoder)
