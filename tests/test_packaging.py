"""What outsiders meet: the version, the checks and the forge's files say the same thing."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORGE = sorted(path for path in (ROOT / ".github").rglob("*.yml"))


def read_yaml(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    text = (ROOT / "Makefile").read_text()
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert found, f"no target {target}"
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in found[1].splitlines()]


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    (repository,) = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == recipe("check")


def test_the_workflow_runs_the_commands_of_the_readme_on_every_python() -> None:
    job = read_yaml(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make check", "make test"]
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if prefix in line]
    assert job["strategy"]["matrix"]["python"] == named
    last = int(named[-1].removeprefix("3."))
    assert PROJECT["requires-python"] == f">={named[0]},<3.{last + 1}"


@pytest.mark.parametrize("path", FORGE, ids=lambda path: path.name)
def test_forge_files_are_yaml(path: Path) -> None:
    assert read_yaml(path)


@pytest.mark.parametrize("name", ["bug.yml", "question.yml"])
def test_issue_templates_ask_for_the_doctor(name: str) -> None:
    body = read_yaml(ROOT / ".github" / "ISSUE_TEMPLATE" / name)["body"]
    assert any("headwise doctor" in field["attributes"]["label"] for field in body)
    assert len({field["id"] for field in body}) == len(body)


def test_one_version() -> None:
    """pyproject.toml has it; the changelog and the citation name the same."""
    version = PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(version)}\]", changelog, re.MULTILINE)
    assert read_yaml(ROOT / "CITATION.cff")["version"] == version
    texts = (path.read_text() for path in (ROOT / "src" / "headwise").rglob("*.py"))
    assert not any("__version__ =" in text for text in texts)


def test_citation_has_what_the_format_requires() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == PROJECT["license"]


def test_module_is_the_command() -> None:
    command = [sys.executable, "-m", "headwise", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == metadata.version("headwise")
