"""An encoder that headwise did not train, measured and compared with another.

    python examples/foreign_encoder.py --out results

From the command line, the same with timm's own weights (they are downloaded):

    headwise evaluate --encoder timm:resnet18 --data builtin:digits --out results/resnet18

and without a network, with new weights:

    headwise evaluate --encoder timm:resnet18 --no-pretrained --size 32 --protocols knn \\
        --no-baselines --data builtin:digits --limit 60 --out results/untrained
"""

import argparse
from dataclasses import replace
from pathlib import Path

import timm
import torch

from headwise import DataConfig, EvaluateConfig
from headwise.evaluation.elsewhere import evaluate_encoder
from headwise.model.elsewhere import EncoderChoice

DIGITS = DataConfig(spec="builtin:digits", limit=60)
PROTOCOLS = EvaluateConfig(protocols=("knn", "knn_self"), baselines=False)


def main(out: Path, model: str = "resnet18") -> None:
    out.mkdir(parents=True, exist_ok=True)
    # A file of weights, as another training script writes it.
    weights = timm.create_model(model, num_classes=10).state_dict()
    torch.save({"state_dict": weights}, out / "weights.pth")
    choice = EncoderChoice(architecture=model, size=32)
    first, second = out / "weights", out / "untrained"
    found = evaluate_encoder(out / "weights.pth", DIGITS, first, PROTOCOLS, choice=choice)
    print({key: round(result.value, 3) for key, result in found.items()})

    # A model by name, set beside it image by image.
    beside = replace(PROTOCOLS, against=first)
    choice = EncoderChoice(pretrained=False, size=32)
    found = evaluate_encoder(f"timm:{model}", DIGITS, second, beside, choice=choice)
    difference = found["difference/knn/h"]
    print(f"knn/h: {difference.value:+.3f}, p = {difference.p_value:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    main(parser.parse_args().out)
