"""The words of every command: what is read, what wrong words are answered, what the help says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from resolved import resolved_config

from headwise.cli import evaluate as evaluate_command
from headwise.cli.flags import Flag
from headwise.cli.help import help_text
from headwise.cli.images import own_images
from headwise.cli.main import COMMANDS, command_line, main
from headwise.cli.words import Given, _value, read_words
from headwise.data import DataConfig, open_images
from headwise.errors import UserError
from headwise.files import write_json
from headwise.model.config_file import config_json

LINES = (Path(__file__).parent / "answers.txt").read_text().splitlines()[1:]
ANSWERS = list(zip(LINES[::2], LINES[1::2], strict=True))
FLAGS = [(name, flag) for name in COMMANDS for flag in command_line(name).flags]


def given(*words: str) -> Given[Any]:
    return read_words(command_line(words[0]), words[1:])


@pytest.mark.parametrize(("typed", "answer"), ANSWERS, ids=[typed for typed, _ in ANSWERS])
def test_wrong_words_are_answered_in_one_line(
    typed: str,
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(typed.removeprefix("$ ").split())
    said = capsys.readouterr()
    assert said.err == f"headwise: {answer}\n"
    assert said.out == ""
    assert stop.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_table_covers_every_command() -> None:
    assert len(ANSWERS) >= 60
    assert set(COMMANDS) <= {typed.split()[1] for typed, _ in ANSWERS}


@pytest.mark.parametrize(("name", "flag"), FLAGS, ids=[f"{n} {f.name}" for n, f in FLAGS])
def test_every_flag_is_described(name: str, flag: Flag) -> None:
    assert flag.text.endswith((".", ")")), flag.text
    assert not flag.text.startswith(("Of ", "Or ", "But ", "To ")), flag.text
    if flag.optional and flag.path not in (
        "out",
        "resume",
        "extend",
        "config",
        "run",
        "against",
        "encoder",
        "features",
    ):
        assert "None:" in flag.text or flag.group == "head", flag.text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_help_shows_a_dozen_flags_and_the_long_one_all(name: str) -> None:
    line = command_line(name)
    short = help_text(Given(line=line, values={}, help="usual"))
    full = help_text(Given(line=line, values={}, help="all"))
    shown = [text for text in short.splitlines() if text.startswith("  -")]
    assert len(shown) == len(line.usual.split()) <= 14
    assert set(shown) <= set(full.splitlines())
    for flag in line.flags:
        assert any(flag.name in text.split(", ")[0].split() for text in full.splitlines())
    flags = [flag for flag in line.flags if not flag.positional]
    assert (f"--help all shows all {len(flags)} flags" in short) == (len(shown) < len(flags))


def test_help_shows_the_defaults_that_hold() -> None:
    def default(flag: str, *words: str) -> str:
        text = help_text(given(*words, "--help", "all"))
        below = " ".join(text.split(f"\n  {flag}")[1].split("\n\n")[0].split())
        return below.rpartition(" (")[2].removesuffix(")")

    assert default("--encoder,", "pretrain") == "default: resnet18"
    assert default("--encoder,", "compare") == "default: resnet-small"
    assert default("--epochs ", "pretrain", "--recipe", "demo") == "default: 17"
    assert default("--data,", "evaluate") == "default: the run's"
    assert default("--head.depth ", "pretrain") == "default of mlp: 2"
    assert default("--head.width ", "pretrain") == "default of mlp: the size of h"
    assert default("--head.num-heads ", "pretrain") == "mlp has none"
    assert default("--head.num-heads ", "pretrain", "--recipe", "deepfusion") == (
        "default of transformer: 16"
    )


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (("pretrain", "--no-compiled"), "compiled", False),
        (("pretrain", "--compiled"), "compiled", True),
        (("pretrain", "--compiled", "none"), "compiled", None),
        (("pretrain", "--no-augment.in-c"), "augment.in_c", False),
        (("pretrain", "--augment.no-in-c"), "augment.in_c", False),
        (("pretrain", "--augment.in-c", "False"), "augment.in_c", False),
        (("pretrain", "--data.cache=false"), "data.cache", False),
        (("pretrain", "--head.no-batch-norm"), "head.batch_norm", False),
        (("pretrain", "--head.double-projection"), "head.double_projection", True),
        (("evaluate", "r", "--no-transfer.finetune"), "transfer.finetune", False),
        (("evaluate", "--no-baselines", "r"), "run", Path("r")),
        (("pretrain", "--limit", "300"), "data.limit", 300),
        (("pretrain", "--data.limit", "None"), "data.limit", None),
        (("pretrain", "--epochs", "3", "--epochs", "4"), "epochs", 4),
        (("pretrain", "--lr=1e-3"), "optim.lr", 1e-3),
        (("pretrain", "--lr", "-1"), "optim.lr", -1.0),
        (("pretrain", "--encoder.widths", "8", "8", "16", "16"), "encoder.widths", (8, 8, 16, 16)),
        (("pretrain", "--augment.crop_scale", "0.2", "1"), "augment.crop_scale", (0.2, 1.0)),
        (("compare", "--heads", "mlp", "ffn"), "heads", ("mlp", "ffn")),
        (("theory", "--runs", "a", "b"), "runs", (Path("a"), Path("b"))),
    ],
)
def test_values(words: tuple[str, ...], path: str, value: object) -> None:
    assert given(*words).values[path] == value


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, {"5": 5, "-5": -5}, ["five", "2.5", ""]),
        (float, {"1e-3": 0.001, "-1": -1.0}, ["x", ""]),
        (bool, {"True": True, "False": False}, ["yes"]),
        (str, {"a b": "a b"}, []),
        (Path, {"a/b": Path("a/b")}, []),
        (Literal["a", "b"], {"a": "a"}, ["c", "a,b"]),
        (tuple[float, float], {}, ["1"]),
        (tuple[Literal["a"] | Literal["b"], ...], {"b": ("b",)}, ["c"]),
    ],
)
def test_tyro_reads_values_as_it_did(hint: Any, right: dict[str, object], wrong: list[str]) -> None:
    """The one place that uses tyro: fails where a new version reads or refuses another way."""
    flag = Flag(path="x", place=("x",), hint=hint, optional=False, positional=False, text="")
    for text, value in right.items():
        read = _value(flag, "--x", [text])
        assert read == value
        assert type(read) is type(value)
    for text in wrong:
        with pytest.raises(UserError, match="--x"):
            _value(flag, "--x", [text])


def test_data_flags_change_the_images_of_the_run(tmp_path: Path) -> None:
    data = DataConfig(spec="builtin:digits", limit=60, test_fraction=0.5)
    write_json(
        tmp_path / "config.json", config_json(resolved_config(open_images(data).train, data=data))
    )
    (tmp_path / "DONE").touch()

    def images(*words: str) -> DataConfig | None:
        read = given("evaluate", str(tmp_path), *words)
        return read.command({"data": own_images(read, tmp_path)}).data

    assert images() is None
    assert images("--limit", "300") == DataConfig(
        spec="builtin:digits", limit=300, test_fraction=0.5, fit="crop"
    )
    # A default that is typed is a change all the same.
    assert images("--data.test-fraction", "0.2", "--limit", "none") == DataConfig(
        spec="builtin:digits", fit="crop"
    )
    assert images("--data", "builtin:shapes") == DataConfig()


def test_protocols_take_their_settings() -> None:
    read = given("evaluate", "r", "--protocols", "semi", "--semi.lr", "0.1")
    evaluate_command.refuse_idle(read, read.command().evaluate)
    assert read.command().evaluate.semi.lr == 0.1


def test_python_m_headwise_and_a_reader_that_leaves() -> None:
    run = [sys.executable, "-m", "headwise"]
    done = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.count(".") == 2
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.run([*run, "pretrain", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (left.returncode, left.stderr) == (0, b"")
