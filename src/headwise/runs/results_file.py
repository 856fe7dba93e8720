"""results.json: a section for each data set, and what older versions of the file become."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from headwise.config import from_dict, to_dict
from headwise.errors import UserError
from headwise.files import read_object, write_json
from headwise.runs.results import Result, to_json
from headwise.runs.sections import DataIdentity, Section
from headwise.runs.version_one import lift_results

SCHEMA = 2
"""The layout of results.json. It rises when old readers would misread the file."""

_PREFIX = "data-"


def read_sections(path: Path) -> tuple[Section, ...]:
    """Raises `UserError` for a file of a version that is not known, and for an unknown key."""
    file = read_object(path)
    match file.get("schema"):
        case 1:
            return lift_results(file["results"], _classes(path.with_name("evaluation.npz")))
        case 2:
            return tuple(_section(section, str(path)) for section in file["sections"])
        case other:
            raise UserError(
                f"{path} must have schema {SCHEMA} or 1; got {other}; "
                "move it away and evaluate again"
            )


def write_sections(path: Path, sections: Iterable[Section]) -> None:
    """Atomically, in the order given."""
    written = [
        {
            "data": to_dict(section.data),
            "results": {key: to_json(result) for key, result in section.results.items()},
        }
        for section in sections
    ]
    write_json(path, {"schema": SCHEMA, "sections": written})


def array_prefix(data: DataIdentity) -> str:
    """What the names of this data set's arrays begin with in evaluation.npz."""
    return f"{_PREFIX}{data.key}/"


def lifted_arrays(
    arrays: Mapping[str, np.ndarray], sections: Sequence[Section]
) -> dict[str, np.ndarray]:
    """The arrays of an evaluation.npz, each with its data set's prefix. Version 1 had none: there
    an array belongs to the result of its name. Its `classes` stay for `read_sections`."""
    owners = {key: array_prefix(s.data) for s in sections for key in s.results}
    prefixed = {}
    for name, array in arrays.items():
        key = name.partition("/")[2]
        if name.startswith(_PREFIX) or name == "classes":
            prefixed[name] = array
        elif key in owners:
            prefixed[owners[key] + name] = array
    return prefixed


def _classes(path: Path) -> list[str]:
    """The names of the classes that version 1 kept among the arrays."""
    if not path.exists():
        return []
    with np.load(path) as arrays:
        return arrays["classes"].tolist() if "classes" in arrays else []


def _section(values: Mapping[str, Mapping[str, object]], where: str) -> Section:
    return Section(
        data=from_dict(DataIdentity, values["data"], f"{where}: data"),
        results={
            key: from_dict(Result, result, f"{where}: {key}")
            for key, result in values["results"].items()
        },
    )
