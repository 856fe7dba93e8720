"""JSON that other commands wrote, read with errors that name the file."""

import json
from pathlib import Path

from headwise.errors import UserError
from headwise.files import Json, read_json


def read_object(path: Path) -> Json:
    """The object in a JSON file; empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except json.JSONDecodeError as error:
        raise UserError(
            f"report: {path} must be JSON; got {error}; run that command again"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"report: {path} must hold a JSON object; got {type(found).__name__}")
    return found
