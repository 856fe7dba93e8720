"""What pages, docstrings and scripts say, as lists: commands, flags, snippets, links, tables."""

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "headwise"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SCRIPTS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
SOURCES = [*sorted((ROOT / "src").rglob("*.py")), *SCRIPTS]

TOOLS = ("headwise", "make", "python", "torchrun")


class Quote(NamedTuple):
    """A piece of code in a text."""

    where: str
    """File and line."""
    text: str


def inline_code(text: str, name: str) -> Iterator[Quote]:
    """What stands between backticks, outside fenced blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            for match in re.finditer(r"`([^`]+)`", line):
                yield Quote(f"{name}:{number}", match[1])


def fenced_code(text: str, name: str, language: str) -> Iterator[Quote]:
    """The blocks of one language."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield Quote(f"{name}:{text[: match.start()].count(chr(10)) + 2}", match[1])


def command_lines(text: str, name: str) -> Iterator[Quote]:
    """Every command line: in blocks of shell, indented, or between backticks."""
    for block in fenced_code(text, name, "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.split() and not line.startswith("#"):
                yield Quote(block.where, line)
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        if re.match(rf"(    |  )({'|'.join(TOOLS)}) ", line):
            yield Quote(f"{name}:{number}", line)
    for quote in inline_code(text, name):
        if quote.text.split()[0] in TOOLS:
            yield quote


def strings(path: Path) -> Iterator[Quote]:
    """Docstrings and all other strings of a Python file; what an f-string fills in reads X."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "X" for p in node.values]
            yield Quote(f"{path.relative_to(ROOT)}:{node.lineno}", "".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Quote(f"{path.relative_to(ROOT)}:{node.lineno}", node.value)


def words_of(line: str) -> list[str]:
    """The words of a command line. Brackets around optional parts go, and so do comments; a
    placeholder (N, …) becomes a value that fits."""
    words = shlex.split(re.sub(r"[][]", "", line), comments=True)
    words = ["1" if word == "N" else word for word in words]
    return [
        "knn" if word == "…" else word
        for before, word in zip(["", *words], words, strict=False)
        if word != "…" or before.startswith("--")
    ]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def script_parser(path: Path) -> argparse.ArgumentParser:
    """A parser with the arguments that a script adds, which is read and not run."""
    parser = _Parser()
    kinds = {"int": int, "float": float, "str": str, "Path": Path}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="add_argument"), args=[*names]):
                settings: dict[str, Any] = {}
                for keyword in node.keywords:
                    match keyword.arg, keyword.value:
                        case "type", ast.Name(id=kind):
                            settings["type"] = kinds[kind]
                        case ("nargs" | "action" | "required") as key, ast.Constant(value=value):
                            settings[key] = value
                parser.add_argument(*(ast.literal_eval(name) for name in names), **settings)
    return parser


def heading_anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures, but for those on the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    return [target for target in found if not target.startswith(("http:", "https:"))]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its first line; cells stripped."""
    below = f"\n{text}".split(f"\n{heading}\n", 1)[1]
    lines = below[below.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def defined_in(path: Path) -> set[str]:
    """The names that a Python file defines, those inside classes as Class.name."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        names |= _bound(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for inner in node.body for name in _bound(inner)}
    return names


def _bound(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {name.id for name in targets if isinstance(name, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def file_named(name: str) -> Path:
    """The one file that a page means by `name`: from the top, from the package, or any file whose
    path ends in it. Raises `ValueError` for none and for several."""
    for base in (ROOT, PACKAGE):
        if (base / name).exists():
            return base / name
    candidates = [path for top in ("src", "tests") for path in (ROOT / top).rglob("*")]
    found = [path for path in candidates if path.as_posix().endswith("/" + name)]
    if len(found) != 1:
        raise ValueError(f"{name} names {len(found)} files")
    return found[0]
