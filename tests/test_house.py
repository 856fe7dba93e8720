"""The rules of the house that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "headwise"
FILES = sorted(SOURCE.rglob("*.py"))

# A file imports only from its own room and from rooms above it.
ROOMS = (
    "errors",
    "config",
    "rng",
    "files",
    "own_code",
    "runtime",
    "losses",
    "runs",
    "data",
    "heads",
    "augment",
    "encoders",
    "model",
    "features",
    "evaluation",
    "probes",
    "sklearn",
    "pretraining",
    "fusion",
    "report",
    "theory",
    "comparison",
    "study",
    "explore",
    "export",
    "cli",
)


def room_of(module: str) -> int:
    return ROOMS.index(module.split(".")[1])


def imports(path: Path) -> set[str]:
    """The rooms of headwise that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "headwise":
            names = [f"headwise.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        found |= {name for name in names if name.startswith("headwise.")}
    return found


def test_every_file_has_a_room() -> None:
    tops = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert tops - {"__init__", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_from_rooms_above(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        pytest.skip("the package's own names come from everywhere, lazily")
    if own == "__main__":
        pytest.skip("python -m headwise is the command line")
    later = [name for name in imports(path) if room_of(name) > ROOMS.index(own)]
    assert not later


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_habits(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not text, "a module says what it is"
    assert len(text.splitlines()) <= 300
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hasattr", f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", "string annotations hide shapes from the checks"
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            documentation = (ast.get_docstring(node) or "").count("\n") + 1
            # The loop is one page on purpose.
            assert node.name == "_loop" or lines - documentation <= 40, f"{node.name}: {lines}"
            assert len(node.args.posonlyargs + node.args.args) <= 5, (
                f"{node.name} has too many positional parameters"
            )


def test_public_names() -> None:
    import headwise

    assert sorted(headwise.__all__) == sorted(
        [
            "CompareConfig",
            "DataConfig",
            "EncoderConfig",
            "EvaluateConfig",
            "FusionConfig",
            "HeadConfig",
            "OptimConfig",
            "PretrainConfig",
            "build_head",
            "compare",
            "embed",
            "evaluate",
            "load_encoder",
            "load_model",
            "measure_fusion",
            "nt_xent",
            "open_images",
            "open_run",
            "own",
            "prepare",
            "pretrain",
            "resume",
        ]
    )
    for name in headwise.__all__:
        assert getattr(headwise, name).__doc__, name
        assert callable(getattr(headwise, name)), name


def test_importing_the_modules_leaves_the_public_names_alone() -> None:
    code = (
        "import headwise.pretraining.loop, headwise.evaluation, headwise.comparison\n"
        "from headwise import pretrain, evaluate, compare\n"
        "assert all(type(f).__name__ == 'function' for f in (pretrain, evaluate, compare))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from headwise.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'timm', 'tyro', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_one_place_writes_csv() -> None:
    """There, cells that a spreadsheet would take for a formula are made text."""
    writers = re.compile(r"csv\.(writer|DictWriter)|to_csv|savetxt")
    found = [path.name for path in FILES if writers.search(path.read_text())]
    assert found == ["files.py"]
