"""What a Transformer head over the batch is worth: the same encoder under it in every context and
under its controls, several seeds, equal steps; tables as Markdown, and a report in every run.

    python examples/deep_fusion.py --data IMAGES --out runs/deep-fusion

What is there already is not made again: a call that was cut short goes on.
"""

import argparse
from pathlib import Path

from headwise.data import DataConfig, Splits, open_images
from headwise.encoders import SMALL_RESNET, EncoderConfig
from headwise.heads import HeadConfig
from headwise.optim import OptimConfig
from headwise.pretrain_config import PretrainConfig
from headwise.pretraining import pretrain, resume
from headwise.runs import Run

HEADS = {
    "mlp": HeadConfig(name="mlp"),
    "ffn": HeadConfig(name="ffn"),
    "ffn-matched": HeadConfig(name="ffn-matched"),
    "joint": HeadConfig(name="transformer", context="joint"),
    "per-view": HeadConfig(name="transformer", context="per-view"),
    "self": HeadConfig(name="transformer", context="self"),
    "uniform": HeadConfig(name="transformer", attention="uniform"),
    "twin-masked": HeadConfig(name="transformer", context="twin-masked"),
    "halves": HeadConfig(name="transformer", context="halves"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", nargs="+", default=list(HEADS))
    parser.add_argument("--limit", type=int, default=5_000, help="images of each split")
    parser.add_argument("--epochs", type=int, default=25, help="of pretraining")
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    images = open_images(DataConfig(spec=flags.data, limit=flags.limit))
    for seed in range(flags.seeds):
        for head in flags.heads:
            print(f"{head}, seed {seed}", flush=True)
            pretrained(head, seed, images, flags)


def pretrained(head: str, seed: int, images: Splits, flags: argparse.Namespace) -> Run:
    path = flags.out / f"{head}-{seed}"
    if path.exists():
        return resume(path, images)
    config = PretrainConfig(
        data=DataConfig(spec=flags.data, limit=flags.limit),
        encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided"),
        head=HEADS[head],
        optim=OptimConfig(name="adamw", lr=1e-3),
        epochs=flags.epochs,
        seed=seed,
        knn_every=0,
        # Fusion is followed over training for the first seed.
        keep_checkpoints=flags.epochs if seed == 0 else 1,
    )
    return pretrain(config, path, images)


if __name__ == "__main__":
    main()
