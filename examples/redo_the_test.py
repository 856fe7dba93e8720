"""Redo a comparison's test of its heads from its numbers alone, with pandas and SciPy.

headwise results runs/heads --each --keys linear/h --out answers.csv
python examples/redo_the_test.py answers.csv
"""

import sys
from itertools import combinations

import pandas as pd
from scipy import stats


def redone(answers: pd.DataFrame) -> pd.DataFrame:
    """For each pair of settings: the difference of their accuracies, its standard error and degrees
    of freedom over seeds and test images, and the p-value adjusted for all pairs (Holm)."""
    right = answers.pivot(index=["setting", "seed"], columns="place", values="right")
    settings = list(dict.fromkeys(answers["setting"]))
    rows = [tested(a, b, right.loc[a] - right.loc[b]) for a, b in combinations(settings, 2)]
    table = pd.DataFrame(rows).sort_values("p_value", ignore_index=True)
    left = range(len(table), 0, -1)
    table["adjusted"] = (table["p_value"] * list(left)).clip(upper=1).cummax()
    return table


def tested(a: str, b: str, d: pd.DataFrame) -> dict[str, object]:
    """Crossed random effects: seeds (rows) and test images (columns) are both draws."""
    s, n = d.shape
    mean, of_seeds, of_images = d.to_numpy().mean(), d.mean(axis=1), d.mean(axis=0)
    beyond = d.sub(of_seeds, axis=0).sub(of_images, axis=1) + mean
    residual = (beyond**2).to_numpy().sum() / ((s - 1) * (n - 1))
    parts = of_seeds.var() / s, of_images.var() / n
    variance = max(sum(parts) - residual / (s * n), *parts)
    freedom = variance**2 / (parts[0] ** 2 / (s - 1) + parts[1] ** 2 / (n - 1))
    error = variance**0.5
    p_value = 2 * stats.t.sf(abs(mean) / error, freedom)
    return {"a": a, "b": b, "value": mean, "error": error, "freedom": freedom, "p_value": p_value}


if __name__ == "__main__":
    print(redone(pd.read_csv(sys.argv[1], dtype={"id": str})).to_string(index=False))
