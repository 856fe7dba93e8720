"""Contrastive pretraining of image encoders, projection head first.

The public functions are imported when first used, so that `import headwise` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwise.comparison.compare import CompareConfig, compare
    from headwise.data import DataConfig, open_images
    from headwise.encoders.build import EncoderConfig
    from headwise.evaluation.config import EvaluateConfig
    from headwise.evaluation.evaluate import evaluate
    from headwise.features.table import embed
    from headwise.fusion.config import FusionConfig
    from headwise.fusion.lab import measure_fusion
    from headwise.heads import HeadConfig, build_head
    from headwise.losses import nt_xent
    from headwise.model.config import PretrainConfig
    from headwise.model.export import load_encoder
    from headwise.model.optim import OptimConfig
    from headwise.model.own_parts import open_run
    from headwise.model.preparation import prepare
    from headwise.model.trained import load_model
    from headwise.own_code import own
    from headwise.pretraining.loop import pretrain, resume

_HOMES = {
    "CompareConfig": "comparison.compare",
    "DataConfig": "data",
    "EncoderConfig": "encoders.build",
    "EvaluateConfig": "evaluation.config",
    "FusionConfig": "fusion.config",
    "HeadConfig": "heads",
    "OptimConfig": "model.optim",
    "PretrainConfig": "model.config",
    "build_head": "heads",
    "compare": "comparison.compare",
    "embed": "features.table",
    "evaluate": "evaluation.evaluate",
    "load_encoder": "model.export",
    "load_model": "model.trained",
    "measure_fusion": "fusion.lab",
    "nt_xent": "losses",
    "open_images": "data",
    "open_run": "model.own_parts",
    "own": "own_code",
    "prepare": "model.preparation",
    "pretrain": "pretraining.loop",
    "resume": "pretraining.loop",
}

__all__ = [  # noqa: RUF022, the order of use
    "open_images",
    "pretrain",
    "resume",
    "own",
    "open_run",
    "evaluate",
    "measure_fusion",
    "compare",
    "embed",
    "load_encoder",
    "load_model",
    "prepare",
    "build_head",
    "nt_xent",
    "PretrainConfig",
    "DataConfig",
    "EncoderConfig",
    "HeadConfig",
    "OptimConfig",
    "CompareConfig",
    "EvaluateConfig",
    "FusionConfig",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    return getattr(import_module(f"headwise.{_HOMES[name]}"), name)
