"""Opening a trained run: its config and its model."""

from safetensors.torch import load_file

from headwise.errors import UserError
from headwise.model import checkpoint
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig
from headwise.model.config_file import read_config
from headwise.model.contrastive import ContrastiveModel
from headwise.runs.directory import Run


def load_config(run: Run) -> PretrainConfig:
    """The run's config.json. Raises `UserError` for unknown keys or wrong values."""
    return read_config(PretrainConfig, run.path / "config.json")


def load_model(run: Run) -> tuple[PretrainConfig, ContrastiveModel]:
    """Encoder and head of a run with the weights of its last checkpoint, on the CPU."""
    config, model = build_model(load_config(run))
    path = checkpoint.latest(run.path / "checkpoints")
    if path is None:
        raise UserError(f"run {run.path} must have a checkpoint; found none; pretrain it again")
    model.load_state_dict(load_file(path / "model.safetensors"))
    return config, model
