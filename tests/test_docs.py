"""Pages and docstrings say what is so: their commands parse, their snippets run, their links lead
somewhere, the files and names they mention exist, and their tables agree with the code."""

import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import shlex
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documents
import pytest
import torch
from documents import PACKAGE, PAGES, ROOT, SCRIPTS, SOURCES, Quote
from PIL import Image
from torch import nn

import headwise
from headwise import heads
from headwise.cli import evaluate as evaluate_line
from headwise.cli import pretrain as pretrain_line
from headwise.cli.flags import SHORT_NAMES
from headwise.cli.main import COMMANDS, command_line, main
from headwise.cli.words import Given, read_words
from headwise.config import to_dict
from headwise.errors import UserError
from headwise.evaluation import config as evaluation_config
from headwise.evaluation.config import PROTOCOLS, EvaluateConfig
from headwise.evaluation.evaluate import evaluate
from headwise.files import write_json
from headwise.model.config import PretrainConfig
from headwise.model.objective import Objective
from headwise.model.optim import resolve
from headwise.pretraining.loop import pretrain
from headwise.pretraining.recipes import RECIPES, recipe
from headwise.report.reading.long import Number, numbers
from headwise.report.tables.forms import lines

# A changelog names what there was.
PRESENT = [path for path in PAGES if path.name != "CHANGELOG.md"]

LEAST = {
    "evaluate": ["RUN"],
    "fusion": ["RUN"],
    "theory": ["--out", "DIR"],
    "embed": ["RUN", "IMAGES", "--out", "FILE.parquet"],
    "search": ["TABLE", "--query", "IMAGE"],
    "duplicates": ["TABLE"],
    "select": ["TABLE"],
    "explore": ["TABLE", "--out", "PAGE.html"],
    "report": ["RUN"],
    "export": ["RUN", "--out", "DIR"],
    "results": ["RUN"],
}
"""What a command needs beside the flags that are tried."""
OTHERS = {"--upgrade", "--reinstall", "--porcelain", "--no", "--no-XXX"}
"""Flags of other programs, and the beginning of those that turn a switch off."""


def read(command: str, words: list[str], *, whole: bool = True) -> Given[Any]:
    """What a command reads from its words before it does anything. Raises `UserError`, for whole
    commands also where a flag has no effect beside the others."""
    given = read_words(command_line(command), words)
    if given.help != "no":
        return given
    if given.values.get("resume") is not None:
        pretrain_line.refuse_beside_resume(given)
        return given
    if "extend" in given.values:  # it starts from a run, which is not there
        values = {path: value for path, value in given.values.items() if path != "extend"}
        given = dataclasses.replace(given, values=values)
    config = given.command()
    match command:
        case _ if not whole:
            pass
        case "pretrain" | "compare":
            pretrain_line.refuse_idle(given, config.pretrain)
        case "evaluate":
            evaluate_line.refuse_idle(given, config.evaluate)
    return given


@functools.cache
def flags_of(command: str) -> frozenset[str]:
    flags = [flag for flag in command_line(command).flags if not flag.positional]
    names = (name for flag in flags for name in (flag.name, flag.long_name, *flag.off_names))
    return frozenset({*names, "--help"})


FLAGS = {"--version"}.union(*map(flags_of, COMMANDS))


def follow(line: str) -> None:
    """Read a command line as its program would. Raises `UserError` or `ValueError`."""
    match documents.words_of(line):
        case ["torchrun", *words] if "headwise" in words:
            follow(shlex.join(words[words.index("headwise") :]))
        case ["python", "-m", "headwise", *words]:
            follow(shlex.join(["headwise", *words]))
        case ["headwise"] | ["torchrun"] | ["headwise", "--help" | "--version"]:
            pass
        case ["headwise", "COMMAND", "--help"] | ["headwise", "COMMAND", "--help", "all"]:
            pass
        case ["headwise", command]:
            command_line(command)
        case ["headwise", command, *words]:
            read(command, words)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text()
            for target in targets:
                name, equals, _ = target.partition("=")
                if not re.search(rf"^{name} \?=" if equals else rf"^{name}:", makefile, re.M):
                    raise ValueError(f"the Makefile has no {target}")
        case ["python", "-c", *_]:
            pass
        case ["python", script, *words]:
            documents.script_parser(ROOT / script).parse_args(words)
        case [script, *words] if script.startswith("benchmarks/"):
            documents.script_parser(ROOT / script).parse_args(words)
        case [flag] if flag.startswith("--"):
            known(flag)
        case [flag, *_] as words if flag.startswith("--"):
            if not readings(words):
                raise ValueError(f"no command has {flag}")
        case words:
            raise ValueError(f"what is {words}?")


def known(flag: str) -> None:
    """A flag that is mentioned alone, or as `--group.*`, is one of some command."""
    name = flag.partition("=")[0].rstrip("*")
    found = any(other.startswith(name) for other in FLAGS) if name[-1] == "." else name in FLAGS
    if not found:
        raise ValueError(f"no command has {flag}")


def readings(words: list[str]) -> list[tuple[Any, Any]]:
    """What commands read from flags that are mentioned without one, each beside what it reads
    without them; settings of heads are tried with every head. Raises `UserError` where all that
    have such flags refuse."""
    found, errors = [], []
    for command in COMMANDS:
        if not {word.partition("=")[0] for word in words if word[:2] == "--"} <= flags_of(command):
            continue
        for name in heads.HEADS if words[0].startswith("--head.") else [""]:
            start = [*LEAST.get(command, []), *(["--head", name] if name else [])]
            try:
                given = read(command, [*start, *words], whole=False)
            except UserError as error:
                errors.append(error)
            else:
                found.append((given.command(), read(command, start).command()))
    if errors and not found:
        raise errors[0]
    return found


def quoted_commands() -> Iterator[Quote]:
    """Every command line, and every flag between backticks, of pages, docstrings and messages."""
    texts = [Quote(str(path.relative_to(ROOT)), path.read_text()) for path in PRESENT]
    texts += [text for path in SOURCES for text in documents.strings(path)]
    for text in texts:
        yield from documents.command_lines(text.text, text.where)
        for quote in documents.inline_code(text.text, text.where):
            if re.match(r"--[a-z]|benchmarks/\w+\.py", quote.text):
                yield quote


def test_commands_are_read_by_the_commands_themselves() -> None:
    wrong = []
    for quote in quoted_commands():
        try:
            follow(quote.text)
        except (UserError, ValueError, OSError) as error:
            wrong.append(f"{quote.where}: {quote.text}\n    {error}")
        except SystemExit as stop:
            wrong.append(f"{quote.where}: {quote.text}\n    exit {stop.code}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "headwise pretrain --data ./photos --encodr resnet50 --out runs/photos",
        "headwise pretrain --recipe smal",
        "headwise pretrain --head mpl",
        "headwise pretrain --epochs five",
        "headwise compare --heads mlp,transformer --out DIR",
        "headwise evaluate RUN --protocols nearest",
        "headwise evaluat RUN",
        "headwise embed RUN",
        "make dmeo",
        "python examples/heads.py --data ./photos --output runs/photos",
        "benchmarks/loss.py --sizes many",
        "--head.batchnorm",
        "--head.depth ten",
        "--heads.*",
        "--head linear --head.depth 10",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((UserError, ValueError, OSError, SystemExit)):
        follow(line)


def test_flags_in_messages_exist() -> None:
    wrong = []
    for path in (ROOT / "src").rglob("*.py"):
        for text in documents.strings(path):
            for flag in re.findall(r"(?<![\w(-])--[a-z][\w.-]*\w", text.text):
                if flag not in FLAGS | OTHERS:
                    wrong.append(f"{text.where}: {flag}")
    assert not wrong


def test_paths_in_commands_are_made_or_explained() -> None:
    """`./photos` and its like stand in a table of docs/data.md; a run or a comparison that is read
    is made by a command of the same page, or of the README."""
    text = (ROOT / "docs" / "data.md").read_text()
    explained = {row[0].strip("`") for row in documents.table(text, "### Paths in these pages")}
    readme = made_and_used((ROOT / "README.md").read_text())[0]
    for path in PRESENT:
        made, used = made_and_used(path.read_text())
        unmade = {name for name in used if name.startswith("runs/")} - made - readme
        assert not unmade, f"{path.name} reads {unmade}, which no command before it makes"
        images = {name for name in used if name.startswith("./")}
        assert images <= explained, f"{path.name}: {images - explained}"


def made_and_used(text: str) -> tuple[set[str], set[str]]:
    """The paths that a page's commands make, and all others in them."""
    made, used = set(), set()
    for quote in documents.command_lines(text, ""):
        before = ""
        for word in documents.words_of(quote.text):
            path = word.rpartition("=")[2]
            if path.startswith(("runs/", "./")):
                (made if before == "--out" or word.startswith("OUT=") else used).add(path)
            before = word
    return made, used


# Snippets.


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("snippets")


def test_snippets_run(
    somewhere: Path, tiny: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All Python of README and docs, page by page. What the pages have a reader make before is
    here a tiny run and a picture; what a snippet pretrains itself is shrunk to
    a few steps, and what it evaluates to the first tap."""
    monkeypatch.chdir(somewhere)
    pretrain(tiny, "runs/photos", quiet=True)
    Image.new("RGB", (24, 16), "olive").save("one.jpg")
    evaluate("runs/photos", config=EvaluateConfig(protocols=("knn",), taps=("h",)))
    Path("numbers.csv").write_text("".join(lines(numbers(["runs/photos"]), Number, "csv")))

    def shrunk(config: PretrainConfig, out: str, **others: object) -> object:
        data = dataclasses.replace(config.data, limit=40)
        encoder = dataclasses.replace(config.encoder, widths=(8, 8, 16, 16))
        small = dataclasses.replace(
            config, data=data, encoder=encoder, epochs=1, batch_size=20, device="cpu"
        )
        return pretrain(small, out, quiet=True)

    def hurried(run: str, *, config: EvaluateConfig) -> object:
        return evaluate(
            run, config=dataclasses.replace(config, taps=config.taps[:1], baselines=False)
        )

    monkeypatch.setattr(headwise, "pretrain", shrunk)
    monkeypatch.setattr(headwise, "evaluate", hurried)
    count = 0
    for path in PAGES:
        names: dict[str, object] = {}
        for block in documents.fenced_code(path.read_text(), path.name, "python"):
            exec(compile(block.text, block.where, "exec"), names)
            count += 1
    assert count >= 3


# The walk.


def stack(top: str) -> list[str]:
    """Our own functions that are running, from `top` on, as docs/walk.md writes them."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            name = frame.f_code.co_qualname.partition(".<locals>")[0]
            found.append(f"{path.relative_to(PACKAGE)}: {name}")
        frame = frame.f_back
    return found[found.index(top) :: -1]


def test_hops_are_those_of_the_walk(
    tmp_path: Path, tiny: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "walk.md").read_text()
    lines = [line.replace("`", "").split(" → ") for line in text.splitlines() if "` → `" in line]
    assert all(len(line) - 1 <= 5 for line in lines)
    stacks: list[list[str]] = []
    real_backward, real_knn = torch.Tensor.backward, evaluation_config.knn

    def backward(loss: torch.Tensor) -> None:
        stacks.append(stack("cli/main.py: main"))
        real_backward(loss)

    def knn(*words: Any, **settings: Any) -> object:
        stacks.append(stack("evaluation/evaluate.py: evaluate"))
        return real_knn(*words, **settings)

    write_json(tmp_path / "config.json", to_dict(tiny))
    words = ["--config", f"{tmp_path / 'config.json'}", "--out", f"{tmp_path / 'run'}"]
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", *words, "--epochs", "1", "--quiet"])
    monkeypatch.setattr(torch.Tensor, "backward", real_backward)
    assert stop.value.code == 0
    monkeypatch.setattr(evaluation_config, "knn", knn)
    evaluate(tmp_path / "run", config=EvaluateConfig(protocols=("knn",), taps=("h",)))
    assert [stacks[0], stacks[-1]] == [line[:-1] for line in lines]


# Links and names.


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in documents.links(path.read_text()):
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if anchor:
            assert anchor in documents.heading_anchors(file.read_text()), target


@pytest.mark.parametrize("path", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_names_exist(path: Path) -> None:
    """`runs/directory.py: Run.create` names a file and something in it, `heads.leaks` a name in a
    room, `headwise.errors.UserError` one from the top."""
    wrong = []
    for quote in documents.inline_code(path.read_text(), path.name):
        file = re.fullmatch(r"([\w./-]+\.(?:py|c|md))(?:: (\w[\w.]*))?", quote.text)
        dotted = re.fullmatch(r"((?:headwise|[a-z]+)(?:\.[A-Za-z_]\w*)+)(?:\(.*)?", quote.text)
        try:
            if file and "NAME" not in file[1]:
                source = documents.file_named(file[1])
                if file[2] and file[2] not in documents.defined_in(source):
                    raise ValueError(f"{file[1]} does not define {file[2]}")
            elif (
                dotted
                and dotted[1].split(".")[0] in {"headwise", *rooms()}
                and not is_a_file(dotted[1])
            ):
                resolved(dotted[1].removeprefix("headwise."))
        except (ValueError, AttributeError, ImportError) as error:
            wrong.append(f"{quote.where}: {quote.text}: {error}")
    assert not wrong, "\n".join(wrong)


def is_a_file(name: str) -> bool:
    return name.endswith((".json", ".html", ".npz", ".parquet", ".safetensors"))


def rooms() -> set[str]:
    return {path.name for path in PACKAGE.iterdir() if path.is_dir()}


def resolved(dotted: str) -> object:
    """What a dotted name below headwise names."""
    here: object = headwise
    for name in dotted.split("."):
        try:
            here = getattr(here, name)
        except AttributeError:
            assert inspect.ismodule(here)
            here = importlib.import_module(f"{here.__name__}.{name}")
    return here


def test_pages_that_sources_name_exist() -> None:
    for path in SOURCES:
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
            assert (ROOT / page).exists(), f"{path.name}: {page}"


# Tables.


def cells(page: str, heading: str) -> list[list[str]]:
    return documents.table((ROOT / "docs" / page).read_text(), heading)


def names_in(rows: list[list[str]]) -> list[str]:
    """What stands between backticks in first cells."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def test_the_tables_of_commands() -> None:
    commands = [name.split()[1] for name in names_in(cells("commands.md", "# Commands"))]
    assert commands == list(COMMANDS)
    short = {row[1].strip("`"): row[0].strip("`") for row in cells("commands.md", "## Flags")}
    assert short == {f"--{path}": name for path, name in SHORT_NAMES.items()}


def test_the_table_of_recipes_is_made_from_the_recipes() -> None:
    assert cells("commands.md", "## Recipes") == [described(name) for name in RECIPES]


def described(name: str) -> list[str]:
    """A recipe's row: what it trains, with which loss and optimizer, and for how long."""
    config = recipe(name)
    head = ", ".join(
        [config.head.name]
        + [
            f"{field.name} {getattr(config.head, field.name)}"
            for field in dataclasses.fields(config.head)[1:]
            if getattr(config.head, field.name) is not None
        ]
    )
    loss = f"τ {config.temperature:g}" if config.objective == "nt-xent" else config.objective
    optimizer = resolve(config.optim, config.epochs)
    scaling = {"none": "", "linear": "·B/256", "sqrt": "·√B"}[optimizer.lr_scaling]
    rate = f"{optimizer.name}, {optimizer.lr:g}{scaling}"
    length = f"{config.batch_size} × {config.epochs}"
    return [f"`{name}`", config.encoder.name, head, loss, rate, length]


def test_head_settings_stand_as_they_are() -> None:
    assert names_in(cells("heads.md", "## The heads")) == list(heads.HEADS)
    published = cells("heads.md", "## The published forms")
    for row in published:
        (name,), flags = re.findall(r"^`([\w-]+)`", row[0]), re.findall(r"`([^`]+)`", row[1])
        config, _ = readings(shlex.split(flags[0]))[0]
        assert config.pretrain.head == recipe(name).head, (
            f"{flags[0]} does not make the head of {name}"
        )


def test_what_heads_differ_in() -> None:
    rows = {row[0].strip("`"): row[1:] for row in cells("heads.md", "## What the heads differ in")}
    for words, row in rows.items():
        ((command, _),) = readings(["--head", *shlex.split(words)])[:1]
        assert row == made_of(command.pretrain.head, row[4]), words
    names = ("parameters", "depth", "width", "d", "norm", "bias", "activation", "residual")
    differ = [
        [
            f"`{one}`, `{other}`",
            ", ".join(
                name
                for name, a, b in zip((*names, "attention"), rows[one], rows[other], strict=True)
                if a != b
            ),
        ]
        for one, other in itertools.combinations(heads.HEADS, 2)
    ]
    assert cells("heads.md", "### Every pair of heads") == differ


def made_of(config: heads.HeadConfig, norm: str) -> list[str]:
    """A head's row, and the words for its norm if they name the kinds that it has."""
    head, settings = heads.build_head(config, 512), heads.resolve(config, 512)
    kinds = {type(module).__name__ for module in head.modules()}
    trained = {name for name, p in head.named_parameters() if p.requires_grad}
    biases = {name.split(".")[1] for name in trained if name.endswith("bias")}
    at_the_end = str(len(head.layers) - 1) in biases
    norms = {name for name in ("BatchNorm", "LayerNorm") if name in norm}
    attention = "ReLU" if "ReluBlock" in kinds else "softmax" if "Block" in kinds else "none"
    return [
        f"{sum(head.get_parameter(name).numel() for name in trained):,}",
        str(sum(isinstance(module, nn.Linear) for module in head.modules())),
        str(settings.width or "none"),
        str(settings.output_size or "p"),
        norm if norms == {k.removesuffix("1d") for k in kinds if "Norm" in k} else str(kinds),
        "all" if at_the_end else "hidden" if biases else "none",
        next((name for name in ("ReLU", "GELU") if name in kinds), "none"),
        "in each block" if any(name.endswith("Block") for name in kinds) else "none",
        attention,
    ]


def test_every_loss_of_a_run_is_documented() -> None:
    text = (ROOT / "docs" / "losses.md").read_text()
    for name in typing.get_args(Objective):
        assert f"`--objective {name}`" in text, name


def test_protocols_have_a_section_each() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text()
    sections = set(re.findall(r"^## (.*)$", text, re.M))
    assert set(PROTOCOLS) <= sections
    assert {name for name in sections if name == name.lower()} == set(PROTOCOLS)


def test_the_public_names_and_their_parameters() -> None:
    calls = names_in(cells("python.md", "## Names"))
    assert {name.partition("(")[0] for name in calls} == set(headwise.__all__)
    for call in calls:
        name, _, arguments = call.partition("(")
        if arguments:
            signature = inspect.signature(getattr(headwise, name))
            parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            plain = inspect.Signature(parameters)
            assert call == name + str(plain).replace("'", '"'), call


def test_defaults_in_tables_are_those_of_the_settings() -> None:
    """`--limit 5` in a table whose first column is of flags with their defaults."""
    count = 0
    for path in PRESENT:
        for rows in re.findall(
            r"^\| flag, with the default .*\n\|.*\n((?:\|.*\n)+)", path.read_text(), re.M
        ):
            for words in map(documents.words_of, re.findall(r"^\| `([^`]+)`", rows, re.M)):
                if len(words) == 1 or words[1].isupper():
                    known(words[0])
                    continue
                assert any(plain(one) == plain(other) for one, other in readings(words)), words
                count += 1
    assert count >= 25


def plain(command: Any) -> object:
    """A command with its head's settings as they are where they are left to the head."""
    if not hasattr(command, "pretrain"):
        return command
    head = heads.resolve(command.pretrain.head, 64)
    return dataclasses.replace(command, pretrain=dataclasses.replace(command.pretrain, head=head))


def test_the_index_lists_every_page_and_room() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    listed = {(ROOT / "docs" / target).resolve() for target in documents.links(text)}
    assert {path for path in PAGES if path.is_relative_to(ROOT / "docs")} - listed == {
        ROOT / "docs" / "index.md"
    }
    said = {name.rstrip("/") for name in names_in(cells("index.md", "## Rooms"))}
    tops = {
        path.name
        for path in PACKAGE.iterdir()
        if path.name[0] not in "_." and path.name != "py.typed"
    }
    assert said == tops


def test_scripts_say_how_to_call_them() -> None:
    for path in SCRIPTS:
        if path.parent.name == "examples":
            assert f"python examples/{path.name} " in path.read_text()


def test_every_promise_of_security_has_its_test() -> None:
    rows = documents.table((ROOT / "SECURITY.md").read_text(), "## What is promised")
    for promise, _, named in rows:
        path, _, test = named.strip("`").partition("::")
        assert f"\ndef {test}(" in (ROOT / path).read_text(), promise
