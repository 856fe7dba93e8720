"""The benchmarks' own measuring; what they measure is asserted nowhere."""

import ast
import functools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import measure

    return measure


def allocate(mib: int) -> functools.partial[object]:
    return functools.partial(np.ones, mib * 2**20, np.uint8)


def test_functions_take_turns(measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, ""
    durations = {"a": iter([100.0, 1.0, 9.0, 2.0]), "b": iter([100.0, 5.0, 5.0, 30.0])}

    def work(name: str) -> None:
        nonlocal now, calls
        now += next(durations[name])
        calls += name

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    functions = {name: functools.partial(work, name) for name in "ab"}
    assert measure.alternate(functions, rounds=3) == {"a": 2.0, "b": 5.0}
    assert calls == "ab" + "abbaab", "a warm-up each, then rounds that start in turn"


def test_table(measure: ModuleType) -> None:
    rows = [["one", 12345, 1234.56], ["two", 7, 0.012345], ["three", 0, 9.996]]
    assert measure.table(["name", "n", "value"], rows).splitlines() == [
        "| name | n | value |",
        "| --- | ---: | ---: |",
        "| one | 12,345 | 1,235 |",
        "| two | 7 | 0.0123 |",
        "| three | 0 | 10.0 |",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_work_alone(measure: ModuleType) -> None:
    _, extra_mib = measure.time_and_memory(functools.partial(allocate, 64), rounds=1)
    assert extra_mib == pytest.approx(64, abs=4)


def test_the_machine_without_names_and_paths(measure: ModuleType) -> None:
    import platform

    assert "torch" in measure.machine()
    assert platform.node() not in measure.machine()
    assert str(Path.home()) not in measure.machine()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    compile(tree, str(path), "exec")
    assert ast.get_docstring(tree)
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in names or path.name in ("measure.py", "peers.py", "contenders.py")
