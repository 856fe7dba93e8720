"""JSON that other commands wrote, read with errors that name the file."""

from pathlib import Path

from headwise import files
from headwise.files import Json


def read_object(path: Path) -> Json:
    """The object in a JSON file; empty if there is no file."""
    return files.read_object(path) if path.is_file() else {}
