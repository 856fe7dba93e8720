"""The run directory: the interface between commands. See docs/run-directory.md for its files."""

import json
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headwise.errors import UserError
from headwise.files import (
    Json,
    full_disk_named,
    read_object,
    safe_name,
    write_atomically,
    write_json,
    write_text,
)
from headwise.own_code import Handed
from headwise.runs.environment import environment
from headwise.runs.results import Result
from headwise.runs.results_file import (
    array_prefix,
    lifted_arrays,
    read_sections,
    write_sections,
)
from headwise.runs.sections import DataIdentity, Section

FUSION_FILE = "fusion.npz"
EVALUATED = "evaluated"
"""The one key of config.json in a directory of results without a run: what was measured."""


class Run:
    """One run directory. Nothing is written before `create`."""

    def __init__(self, path: Path, handed: Handed | None = None) -> None:
        self.path = path
        self.handed = handed or Handed()
        """The own code that the user hands over with it."""

    @staticmethod
    def create(path: Path, config: Json, device: str) -> "Run":
        """Make the directory and write config.json and environment.json."""
        refuse_existing(path)
        run = Run(path)
        write_json(path / "config.json", config)
        run.write_environment(device)
        return run

    @staticmethod
    def open(
        run: "str | Path | Run",
        *,
        finished: bool = True,
        pretrained: bool = True,
        handed: Handed | None = None,
    ) -> "Run":
        """An existing run; by default only one whose pretraining has finished. With `pretrained`
        False also the results of an encoder or of features, which have no run. `handed`: own code,
        in place of what the run has already."""
        path = run_path(run)
        if not (path / "config.json").is_file():
            raise UserError(f"run {path} must be a directory with a config.json; found none there")
        run = Run(path, run.handed if isinstance(run, Run) and handed is None else handed)
        if EVALUATED in run.config:
            if pretrained:
                raise UserError(
                    f"run {path} must be made by headwise pretrain; it has the results of "
                    f"{next(iter(run.config[EVALUATED].values()))} alone; name a run"
                )
            return run
        if finished and not run.done:
            raise UserError(
                f"run {path} must be finished; its pretraining stopped before the end; "
                f"finish it with: {run.continued_with}"
            )
        return run

    @property
    def config(self) -> Json:
        return read_object(self.path / "config.json")

    @property
    def id(self) -> str | None:
        """What its checkpoints are known by; None in runs of version 0.1."""
        return (self._environment or {}).get("run")

    @property
    def threads(self) -> int | None:
        """How many threads of torch it was begun with; None if it is not known."""
        return (self._environment or {}).get("threads")

    @property
    def has_environment(self) -> bool:
        """Whether environment.json is there and not damaged."""
        return self._environment is not None

    @property
    def _environment(self) -> Json | None:
        try:
            return read_object(self.path / "environment.json")
        except (UserError, FileNotFoundError):
            return None

    @property
    def continued_with(self) -> str:
        """The command that goes on with it; for a run of a comparison, with the comparison."""
        try:
            compared = is_comparison(self.path.absolute().parent)
        except (UserError, OSError):
            compared = False
        command = "compare" if compared else "pretrain"
        return f"headwise {command} --resume {self.path.parent if compared else self.path}"

    def write_environment(self, device: str, run_id: str | None = None) -> None:
        """Write environment.json, with the run's id (None: a new one)."""
        values = {"run": run_id or uuid.uuid4().hex, **environment(device)}
        write_json(self.path / "environment.json", values)

    def remove_temporaries(self) -> None:
        """Remove what a process that was killed had not finished writing."""
        for folder in (self.path, self.path / "checkpoints"):
            for path in folder.glob(".*.tmp"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    def finish(self, encoder_sha256: str | None = None) -> None:
        """Write DONE, with the digest of the encoder's file."""
        write_json(self.path / "DONE", {"encoder_sha256": encoder_sha256})

    def log(self, record: Json) -> None:
        """Append one line to metrics.jsonl."""
        path, line = self.path / "metrics.jsonl", json.dumps(record, allow_nan=False) + "\n"
        with full_disk_named(path, path), path.open("a", encoding="utf-8") as file:
            file.write(line)

    def metrics(self) -> list[Json]:
        """The records of metrics.jsonl; a last line cut short by a crash is left out. Raises
        `UserError` for another line that is broken."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(_record(line))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} line {number} must be JSON; {error}") from None
        return records

    def rewind(self, step: int) -> None:
        """Drop the records after `step`: a resumed run logs them again."""
        kept = [json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(kept))

    @property
    def sections(self) -> tuple[Section, ...]:
        """The results of every data set, in the order in which the data sets were first used."""
        path = self.path / "results.json"
        return read_sections(path) if path.exists() else ()

    def section(self, data: DataIdentity) -> Section | None:
        """The results on these images; None where there are none."""
        return next((s for s in self.sections if s.data.key == data.key), None)

    def add_results(self, data: DataIdentity, results: Mapping[str, Result]) -> None:
        """Merge into this data set's section of results.json: a result of the same key is
        replaced, and the sections of other data sets stay as they are."""
        sections = {section.data.key: section for section in self.sections}
        kept = sections.get(data.key, Section(data=data, results={}))
        sections[data.key] = kept.updated(data, results)
        write_sections(self.path / "results.json", sections.values())

    def arrays(self, data: DataIdentity) -> dict[str, np.ndarray]:
        """What evaluations on this data set kept beside numbers, by name (docs/metrics.md)."""
        prefix = array_prefix(data)
        own = ((name, a) for name, a in self._arrays().items() if name.startswith(prefix))
        return {name.removeprefix(prefix): array for name, array in own}

    def add_arrays(self, data: DataIdentity, arrays: Mapping[str, np.ndarray]) -> None:
        """Merge into evaluation.npz; all arrays of the same result and data set are replaced."""
        prefix = array_prefix(data)
        measured = {prefix + name.partition("/")[2] for name in arrays}
        kept = {
            name: array
            for name, array in self._arrays().items()
            if not name.startswith(prefix) or prefix + name.split("/", 2)[2] not in measured
        }
        merged = kept | {prefix + name: array for name, array in arrays.items()}
        write_atomically(self.path / "evaluation.npz", lambda path: save_arrays(path, merged))

    def _arrays(self) -> dict[str, np.ndarray]:
        """All of evaluation.npz, each name with the prefix of its data set."""
        return lifted_arrays(load_arrays(self.path / "evaluation.npz"), self.sections)

    @property
    def fusion_arrays(self) -> dict[str, np.ndarray]:
        """What `headwise fusion` found, by name (docs/fusion.md); none where it has not run."""
        return load_arrays(self.path / FUSION_FILE)

    def write_fusion_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        write_atomically(self.path / FUSION_FILE, lambda path: save_arrays(path, arrays))


def is_comparison(folder: Path) -> bool:
    """Whether the config.json in a directory is a comparison's."""
    return bool({"pretrain", "heads", "runs"} & read_object(folder / "config.json").keys())


def arm_folder(out: Path, arm: str, seed: int) -> Path:
    """Where a comparison keeps the run of an arm."""
    return out / f"{safe_name(arm)}-seed{seed}"


def arm_folders(out: Path) -> list[tuple[str, int, Path]]:
    """The runs that a comparison keeps, by arm and seed: the arm as it stands in the folder's name,
    the seed, and the folder."""
    found = []
    for folder in out.iterdir():
        arm, _, seed = folder.name.rpartition("-seed")
        if arm and seed.isdecimal() and folder.is_dir():
            found.append((arm, int(seed), folder))
    return sorted(found)


def run_path(run: str | Path | Run) -> Path:
    """Return where a run is, however it is given."""
    if isinstance(run, Run):
        return run.path
    if not isinstance(run, str | Path):
        raise UserError(f"a run must be a path or a Run; got {type(run).__name__}")
    return Path(run)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz; none where it is not there."""
    if not path.exists():
        return {}
    try:
        # np.load does not close a file that it cannot read.
        with path.open("rb") as file, np.load(file) as found:
            return dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(
            f"{path} must be an .npz; {error}; it is damaged: move it away and measure again"
        ) from None


def _record(line: bytes) -> Json:
    """One line of metrics.jsonl. Raises `ValueError` if it is not a record."""
    found = json.loads(line)
    if not isinstance(found, dict) or not isinstance(found.get("step"), int):
        raise ValueError("it has no step")
    return found


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz of exactly this name."""
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def refuse_existing(path: Path, *, resumable: bool = True) -> None:
    """Raise `UserError` where `path` is something else than a missing or empty directory."""
    # Hidden files are temporary ones that a killed process left.
    if path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
        raise UserError(
            f"--out must be a new or empty directory; {path} exists; choose another"
            + (", or go on with it: --resume" if resumable else "")
        )
