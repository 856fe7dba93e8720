"""To the Hugging Face hub."""

from pathlib import Path

from headwise.data.reading import one_line
from headwise.errors import UserError


def check_push(name: str) -> None:
    """Raise `UserError` where a folder cannot be pushed under this name, before it is made."""
    from huggingface_hub import get_token

    if len(name.split("/")) != 2 or not all(name.split("/")):
        raise UserError(f"--push must be OWNER/NAME; got {name!r}")
    if get_token() is None:
        raise UserError(
            "--push needs a token of the Hugging Face hub; found none; set HF_TOKEN, or log in "
            "with: hf auth login"
        )


def push(folder: Path, name: str) -> str:
    """Upload the folder as a model, which is made if it does not exist; its address."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="headwise")
    with one_line(f"{folder} is written; the hub must take it as {name}"):
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Encoder of headwise")
    return f"{api.endpoint}/{name}"
