"""Contrastive pretraining of image encoders, projection head first.

The public functions are imported when first used, so that `import headwise` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwise.comparison import CompareConfig, compare
    from headwise.data import DataConfig, open_images
    from headwise.embedding import embed
    from headwise.encoders import EncoderConfig
    from headwise.evaluation.config import EvaluateConfig
    from headwise.evaluation.evaluate import evaluate
    from headwise.export import load_encoder
    from headwise.fusion.config import FusionConfig
    from headwise.fusion.lab import measure_fusion
    from headwise.heads import HeadConfig, build_head
    from headwise.losses import nt_xent
    from headwise.optim import OptimConfig
    from headwise.pretrain_config import PretrainConfig
    from headwise.pretraining import pretrain, resume

_HOMES = {
    "CompareConfig": "comparison",
    "DataConfig": "data",
    "EncoderConfig": "encoders",
    "EvaluateConfig": "evaluation.config",
    "FusionConfig": "fusion.config",
    "HeadConfig": "heads",
    "OptimConfig": "optim",
    "PretrainConfig": "pretrain_config",
    "build_head": "heads",
    "compare": "comparison",
    "embed": "embedding",
    "evaluate": "evaluation.evaluate",
    "load_encoder": "export",
    "measure_fusion": "fusion.lab",
    "nt_xent": "losses",
    "open_images": "data",
    "pretrain": "pretraining",
    "resume": "pretraining",
}

__all__ = [  # noqa: RUF022, the order of use
    "open_images",
    "pretrain",
    "resume",
    "evaluate",
    "measure_fusion",
    "compare",
    "embed",
    "load_encoder",
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
