"""The model that a config describes, with new weights."""

from headwise import heads
from headwise.encoders import build as encoders
from headwise.encoders.convolution import replace_convolutions
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel


def build_model(config: ResolvedConfig) -> ContrastiveModel:
    """Encoder and head with new weights, a function of the seed; on the CPU."""
    size = config.augment.size
    encoder = encoders.build_encoder(config.encoder, size, config.seed)
    p = encoders.representation_size(encoder, config.encoder, size)
    if config.device == "cpu" and config.precision == "bfloat16" and config.unfolded_convolutions:
        replace_convolutions(encoder)
    return ContrastiveModel(encoder, heads.build_head(config.head, p, config.seed))
