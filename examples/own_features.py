"""Features that another program made, measured by headwise's probes.

    python examples/own_features.py --out results

From the command line, with the table that this script has written:

    headwise evaluate --features results/features.npz --out results/own
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from headwise import probes
from headwise.evaluation.elsewhere import evaluate_features
from headwise.report import write_run_report


def random_features(images: np.ndarray) -> np.ndarray:
    """Stands for an encoder of yours: a random layer with ReLU."""
    weight = np.random.default_rng(0).normal(size=(images.shape[1], 64))
    return np.maximum(images @ weight / images.shape[1] ** 0.5, 0)


def main(out: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:400] / 16, labels[:400]
    test = np.arange(len(labels)) % 4 == 0
    vectors = random_features(images)

    # The probes alone, on arrays.
    answers = probes.knn(vectors[~test], labels[~test], vectors[test])
    print(f"kNN: {probes.accuracy(answers, labels[test]):.3f}")

    # Every protocol that needs features alone, with intervals, figures and a page.
    split = np.where(test, "test", "train")
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "features.npz", vectors=vectors, labels=labels, split=split)
    results = evaluate_features(out / "features.npz", out / "own")
    for key in ("knn/h", "linear/h", "cluster_nmi/h", "rank/h"):
        print(key, results[key].value, results[key].interval)
    print(write_run_report(out / "own"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    main(parser.parse_args().out)
