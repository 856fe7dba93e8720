"""Redo a comparison's test of its heads from its numbers alone, with pandas and SciPy.

headwise results runs/heads --each --keys linear/h --out answers.csv
python examples/redo_the_test.py answers.csv
"""

import argparse
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats


def redone(answers: pd.DataFrame) -> pd.DataFrame:
    """For each pair of settings: the difference of their accuracies, its standard error and degrees
    of freedom over seeds and test images, and the p-value adjusted for all pairs (Holm)."""
    right = answers.pivot(index=["setting", "seed"], columns="place", values="right")
    by_setting = {str(name): rows.to_numpy() for name, rows in right.groupby("setting")}
    pairs = combinations(by_setting, 2)
    rows = [{"a": a, "b": b, **tested(by_setting[a] - by_setting[b])} for a, b in pairs]
    table = pd.DataFrame(rows).sort_values("p_value", ignore_index=True)
    left = np.arange(len(table), 0, -1)
    table["adjusted"] = (table["p_value"] * left).clip(upper=1).cummax()
    return table


def tested(d: np.ndarray) -> dict[str, float]:
    """Crossed random effects: seeds (rows) and test images (columns) are both draws."""
    s, n = d.shape
    of_seeds, of_images = d.mean(axis=1), d.mean(axis=0)
    beyond = d - of_seeds[:, None] - of_images + d.mean()
    residual = (beyond**2).sum() / ((s - 1) * (n - 1))
    parts = of_seeds.var(ddof=1) / s, of_images.var(ddof=1) / n
    variance = max(sum(parts) - residual / (s * n), *parts)
    freedom = variance**2 / (parts[0] ** 2 / (s - 1) + parts[1] ** 2 / (n - 1))
    error = variance**0.5
    p_value = 2 * stats.t.sf(abs(d.mean()) / error, freedom)
    return {"value": d.mean(), "error": error, "freedom": freedom, "p_value": float(p_value)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", help="what headwise results --each wrote")
    table = pd.read_csv(parser.parse_args().answers, dtype={"id": str})
    print(redone(table).to_string(index=False))
