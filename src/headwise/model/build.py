"""The model that a config describes, with new weights, and the encoder that it starts from."""

from torch import nn

from headwise import heads
from headwise.encoders import build as encoders
from headwise.encoders.convolution import replace_convolutions
from headwise.model import start
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.export import START_FILE
from headwise.runs.directory import Run


def build_model(config: ResolvedConfig) -> ContrastiveModel:
    """Encoder and head with new weights, a function of the seed; on the CPU."""
    size = config.augment.size
    encoder = encoders.build_encoder(config.encoder, size, config.seed)
    p = encoders.representation_size(encoder, config.encoder, size)
    if config.device == "cpu" and config.precision == "bfloat16" and config.unfolded_convolutions:
        replace_convolutions(encoder)
    return ContrastiveModel(encoder, heads.build_head(config.head, p, config.seed))


def start_encoder(config: ResolvedConfig, kept: Run | None = None) -> nn.Module | None:
    """The encoder as it is before pretraining, from what the run has `kept`; None if it starts with
    new weights. Raises `UserError` for weights that have changed."""
    size, file = config.augment.size, None if kept is None else kept.path / START_FILE
    weights = start.loaded(config.encoder, size, file)
    if weights is None:
        return None
    encoder = encoders.build_encoder(config.encoder, size, config.seed)
    encoder.load_state_dict(weights)
    return encoder
