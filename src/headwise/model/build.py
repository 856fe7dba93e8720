"""The model that a config describes, with new weights."""

import dataclasses
import logging

from headwise import heads
from headwise.config import chosen
from headwise.encoders import build as encoders
from headwise.encoders.convolution import replace_convolutions
from headwise.model.config import PretrainConfig
from headwise.model.contrastive import ContrastiveModel

log = logging.getLogger("headwise")


def build_model(config: PretrainConfig) -> tuple[PretrainConfig, ContrastiveModel]:
    """The model of a resolved config, with new weights, on the CPU; and the config with the head's
    settings chosen too, for the encoder's `p`."""
    size = chosen(config.augment.size)
    encoder = encoders.build_encoder(config.encoder, size, config.seed)
    p = encoders.representation_size(encoder, config.encoder, size)
    reduced = config.device == "cpu" and config.precision == "bfloat16"
    if reduced and config.unfolded_convolutions:
        replace_convolutions(encoder)
    if reduced and encoders.strides_over_one_pixel(encoder, size):
        log.warning(
            "images of %d px are down to one pixel before the encoder's last strided convolution, "
            "whose bfloat16 gradient is not reliable on CPUs: using float32; try a larger "
            "--augment.size",
            size,
        )
        config = dataclasses.replace(config, precision="float32")
    head = heads.resolve(config.head, p)
    model = ContrastiveModel(encoder, heads.build_head(head, p, config.seed))
    return dataclasses.replace(config, head=head), model
