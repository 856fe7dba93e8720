"""The run directory, also after a crash."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from headwise.errors import UserError
from headwise.files import read_json
from headwise.runs.directory import Run


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", {"epochs": 3}, "cpu")


def test_a_run_directory_is_new_and_says_what_it_depends_on(run):
    assert names(run.path) == ["config.json", "environment.json"]
    assert Run.open(run.path, finished=False).config == {"epochs": 3}
    environment = read_json(run.path / "environment.json")
    assert environment["device"] == "cpu"
    assert environment["threads"] == torch.get_num_threads()
    assert torch.__version__.startswith(environment["versions"]["torch"])
    with pytest.raises(UserError, match="must be a new or empty directory"):
        Run.create(run.path, {}, "cpu")
    assert run.config == {"epochs": 3}


def test_an_empty_directory_may_become_a_run_but_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", {}, "cpu").config == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be a new or empty directory"):
        Run.create(tmp_path / "file", {}, "cpu")


def test_only_finished_runs_open_by_default(run, tmp_path):
    with pytest.raises(UserError, match=r"must be finished; .* headwise pretrain --resume"):
        Run.open(run.path)
    assert not run.done
    run.finish()
    assert Run.open(run.path).done
    with pytest.raises(UserError, match=r"must be a directory with a config\.json"):
        Run.open(tmp_path / "elsewhere")


def test_a_damaged_config_is_a_users_error(run):
    (run.path / "config.json").write_text('{"epochs": ')
    with pytest.raises(UserError, match=r"config\.json must be JSON; .*"):
        _ = run.config


def test_a_last_line_cut_short_is_left_out_and_then_dropped(run):
    assert run.metrics() == []
    records = [{"step": step, "loss": 1 / step} for step in range(1, 6)]
    for record in records:
        run.log(record)
    assert run.metrics() == records
    path = run.path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    assert run.metrics() == records
    run.rewind(4)
    assert path.read_text().splitlines() == [json.dumps(record) for record in records[:4]]
    run.log(records[4])
    assert run.metrics() == records
    run.rewind(0)
    assert run.metrics() == []
    assert names(run.path) == ["config.json", "environment.json", "metrics.jsonl"]


def test_a_broken_line_in_the_middle_is_named(run):
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 must be JSON"):
        run.metrics()


def test_a_number_that_json_has_not_is_not_logged(run):
    run.log({"step": 1})
    with pytest.raises(ValueError, match="JSON"):
        run.log({"step": 2, "loss": math.nan})
    assert run.metrics() == [{"step": 1}]
