"""What a head did to the representation: probes, geometry and pictures' data of a finished run."""

import numpy as np
import torch
from jaxtyping import UInt8
from sklearn.manifold import TSNE
from torch import Tensor

from headwise import rng
from headwise.augment import unnormalised, whole_batches
from headwise.data import Images, Splits
from headwise.evaluation.config import EvaluateConfig, ProtocolName
from headwise.evaluation.evaluate import about_images, extract_run, measure_protocol
from headwise.evaluation.probes.labels import labelled
from headwise.features.extract import Features
from headwise.files import write_atomically
from headwise.model.extraction import ExtractConfig
from headwise.model.trained import load_config, open_trained
from headwise.runs.directory import Run, save_arrays
from headwise.runs.results import Result
from headwise.runs.sections import DataIdentity

TAPS = ("h", "z")
PROTOCOLS: tuple[ProtocolName, ...] = ("knn", "knn_weighted", "knn_self", "linear", "linear_10")
LEADING: tuple[ProtocolName, ...] = ("linear", "knn")
"""The probes that are set beside baselines; the first that was measured leads."""
ANALYSIS_FILE = "analysis.npz"

Measured = dict[str, Result]
"""What `analyse` measured, by key."""

# How many images are points of the map, and how large they are drawn.
_MAP_POINTS, _LEAST_MAP_POINTS, _THUMBNAIL_PX = 500, 4, 32


def analyse(run: Run, images: Splits, *, with_map: bool) -> None:
    """Evaluate `h` and `z` of a finished run: results.json, and last analysis.npz.

    Where there are labels and a test split: the probes. Where the images carry nuisance factors:
    how well each is read. Always: geometry of the test images (of the training images where there
    are no others), and with `with_map` a 2-D map of `h`.
    """
    config = load_config(run)
    protocols: tuple[ProtocolName, ...] = ("geometry",)
    if labelled(images):
        protocols += PROTOCOLS + (("factors",) if images.train.factors else ())
    asked = EvaluateConfig(
        protocols=protocols,
        taps=TAPS,
        seed=config.seed,
        baselines=False,
        device=config.device,
    )
    trained = open_trained(run, images=images, device=config.device)
    extracted, protocols = extract_run(trained, asked)
    run.add_arrays(trained.data, about_images(extracted))
    for name in protocols:
        results, arrays = measure_protocol(name, extracted, asked)
        run.add_arrays(trained.data, arrays)
        run.add_results(trained.data, results)
    test_images = extracted.test_images
    with_map = with_map and len(extracted.tables["h"].test.vectors) >= _LEAST_MAP_POINTS
    kept = _map(extracted.tables["h"].test, test_images, extracted.extraction) if with_map else {}
    write_atomically(run.path / ANALYSIS_FILE, lambda path: save_arrays(path, kept))


def measured_here(run: Run, data: DataIdentity, seed: int) -> Measured:
    """What `analyse` measured on these images; empty where it has not measured all of it, and where
    `headwise evaluate` has since put values of other seeds in their place."""
    section = run.section(data)
    if section is None or not (run.path / ANALYSIS_FILE).exists():
        return {}
    own = {
        key: result
        for key, result in section.results.items()
        if result.protocol in (*PROTOCOLS, "geometry", "factors")
        and set(result.where.split("-")) <= set(TAPS)
        and result.against is None
        and result.measure != "cka_runs"
    }
    probed = [f"{name}/h" in own for name in PROTOCOLS]
    whole = all(probed) or not any(probed)  # none without labels
    return own if whole and all(result.seeds == (seed,) for result in own.values()) else {}


def _map(h: Features, images: Images, extraction: ExtractConfig) -> dict[str, np.ndarray]:
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
        "map_thumbnails": _thumbnails(images.select(h.index[chosen]), extraction).numpy(),
    }


def _thumbnails(images: Images, extraction: ExtractConfig) -> UInt8[Tensor, "n s s 3"]:
    size = min(extraction.augment.size, _THUMBNAIL_PX)
    small = unnormalised(extraction.augment, size)
    batches = whole_batches(images, small, batch_size=512, device="cpu", workers=extraction.workers)
    return torch.cat([(b * 255).round().byte().permute(0, 2, 3, 1) for _, b in batches])
