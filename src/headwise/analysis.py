"""What a head did to the representation: probes, geometry and pictures' data of a finished run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from sklearn.manifold import TSNE
from torch import Tensor

from headwise import geometry, rng
from headwise.augment import unnormalised, whole_batches
from headwise.data import Images, Splits
from headwise.evaluation import Result, factor_scores, probe
from headwise.features import ExtractConfig, Features, extract, extract_config
from headwise.files import write_atomically
from headwise.pretrain_config import load_model
from headwise.runs import Run

TAPS = ("h", "z")
PROTOCOLS = ("knn", "knn_weighted", "linear")
ANALYSIS_FILE = "analysis.npz"

# How many images stand behind the geometry, and how many are points of the map.
_GEOMETRY_ROWS, _MAP_POINTS, _THUMBNAIL_PX = 4096, 500, 32


def analyse(run: Run, images: Splits, *, with_map: bool) -> None:
    """Evaluate `h` and `z` of a finished run: results.json, and last analysis.npz.

    Where there are labels and a test split: the probes. Where the images carry nuisance factors:
    how well each is read. Always: effective rank and singular values of the test images (of the
    training images where there are no others), and with `with_map` a 2-D map of `h`.
    """
    config, model = load_model(run)
    model.to(config.device)
    how = extract_config(config)
    shown = images.train if images.test is None else images.test
    test = extract(model.encoder, model.head, shown, TAPS, how)
    size = sum(p.numel() for p in model.head.parameters() if p.requires_grad)
    results: dict[str, Result] = {"parameters": {"value": size}}
    if labelled(images):
        train = extract(model.encoder, model.head, images.train, TAPS, how)
        for tap in TAPS:
            if tap == "z" and not model.head.layers:  # z is h
                results |= {key.replace("/h", "/z"): value for key, value in results.items()}
            else:
                results |= _probe(images, train[tap], test[tap], tap, config.seed)
    arrays: dict[str, np.ndarray] = {}
    for tap in TAPS:
        rows = test[tap].vectors[:_GEOMETRY_ROWS]
        results[f"rank/{tap}"] = {
            "value": geometry.effective_rank(rows).item(),
            "n": len(rows),
        }
        arrays[f"singular_values/{tap}"] = geometry.singular_values(rows).numpy()
    if with_map:
        arrays |= _map(test["h"], shown, how)
    run.add_results(results)
    write_atomically(run.path / ANALYSIS_FILE, lambda temporary: _save(temporary, arrays))


def _probe(
    images: Splits, train: Features, test: Features, tap: str, seed: int
) -> dict[str, Result]:
    found = probe(PROTOCOLS, train, test, num_classes=len(images.train.classes), seed=seed)
    results = {f"{name}/{tap}": result for name, result in found}
    if images.train.factors:
        scores = _factors(images, train, test, seed)
        mean = sum(scores.values()) / len(scores)
        results[f"factors/{tap}"] = {"value": mean, "n": len(test.vectors), "scores": scores}
    return results


def labelled(images: Splits) -> bool:
    """Whether probes can be run on these images."""
    return (
        images.train.labels is not None
        and images.test is not None
        and (images.test.labels is not None)
    )


def learned(name: str, row: dict[str, Any], baselines: dict[str, dict[str, float]]) -> str:
    """One sentence on what was learned under a head, from its scores."""
    if "linear/h" not in row:
        return (
            f"h spreads over an effective rank of {row['rank/h']:.0f}, z over {row['rank/z']:.0f}; "
            "without labels there is no more to say."
        )
    h, z = row["linear/h"], row["linear/z"]
    gains = [
        f"{100 * (h - baselines[key]['linear' + tap]):+.0f} points {words}"
        for key, tap, words in (
            ("pixels", "", "against raw pixels"),
            ("untrained", "/h", "against the untrained encoder"),
        )
    ]
    kept = f"h names {100 * h:.0f} % of the test images linearly ({', '.join(gains)})"
    gap = h - z
    if name == "identity":
        return f"{kept}; there is no head, so the loss works on h itself."
    if gap > 0.03:
        return f"{kept}; the head gives {100 * gap:.0f} points of that up on the way to z."
    if gap < -0.03:
        return f"{kept}; z names {-100 * gap:.0f} points more."
    return f"{kept}; z names as many, within 3 points."


def _factors(images: Splits, train: Features, test: Features, seed: int) -> dict[str, float]:
    assert images.test is not None, "labelled images have a test split"
    seen = {name: values.cpu()[train.index] for name, values in images.train.factors.items()}
    asked = {name: values.cpu()[test.index] for name, values in images.test.factors.items()}
    return factor_scores(train.vectors, seen, test.vectors, asked, seed=seed)


def _map(h: Features, images: Images, how: ExtractConfig) -> dict[str, np.ndarray]:
    """A 2-D map (t-SNE, from the principal components on) of some images' `h`."""
    count = min(_MAP_POINTS, len(h.vectors))
    chosen = torch.randperm(len(h.vectors), generator=rng.generator(0, "map"))[:count]
    perplexity = min(30.0, (count - 1) / 3)
    place = TSNE(init="pca", perplexity=perplexity, random_state=0)
    points = place.fit_transform(h.vectors[chosen].numpy())
    labels = torch.full((count,), -1) if h.labels is None else h.labels[chosen]
    return {
        "map": points.astype(np.float32),
        "map_labels": labels.numpy(),
        "map_thumbnails": _thumbnails(images.select(h.index[chosen]), how).numpy(),
    }


def _thumbnails(images: Images, how: ExtractConfig) -> UInt8[Tensor, "n s s 3"]:
    size = min(how.augment.size or _THUMBNAIL_PX, _THUMBNAIL_PX)
    small = unnormalised(how.augment, size)
    batches = whole_batches(images, small, batch_size=512, device="cpu", workers=how.workers)
    return torch.cat([(b * 255).round().byte().permute(0, 2, 3, 1) for _, b in batches])


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
