"""The examples of features and encoders from elsewhere: from Python and from the command line."""

import importlib.util
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from headwise.cli import main as cli

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY_MODEL = "test_efficientnet_ln"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None, name
    assert spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def last_command(module: ModuleType) -> list[str]:
    """The last command line of its docstring."""
    text = (module.__doc__ or "").replace("\\\n", " ")
    return shlex.split([line for line in text.splitlines() if line.startswith("    headwise")][-1])


def run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words[1:])
    assert stop.value.code == 0


def test_own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("own_features")
    monkeypatch.chdir(tmp_path)
    module.main(tmp_path / "results")
    assert (tmp_path / "results" / "own" / "report.html").is_file()
    run([*last_command(module), "--protocols", "knn"])  # more of the same table


def test_foreign_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("foreign_encoder")
    monkeypatch.chdir(tmp_path)
    module.main(tmp_path / "results", TINY_MODEL)
    words = [word.replace("resnet18", TINY_MODEL) for word in last_command(module)]
    words[words.index("--out") + 1] = "results/again"
    run(words)
    assert (tmp_path / "results" / "again" / "report.html").is_file()
