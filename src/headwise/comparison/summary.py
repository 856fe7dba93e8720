"""What a head did to the representation: probes, geometry and pictures' data of a finished run."""

import logging
from collections.abc import Mapping

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
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.labels import labelled
from headwise.files import write_atomically
from headwise.model.extraction import ExtractConfig
from headwise.model.trained import load_config, open_trained
from headwise.runs.directory import Run, save_arrays
from headwise.runs.lock import writing
from headwise.runs.results import Result
from headwise.runs.sections import DataIdentity, Section
from headwise.runtime import hardware

log = logging.getLogger("headwise")

TAPS = ("h", "z")
PROTOCOLS: tuple[ProtocolName, ...] = ("knn", "knn_weighted", "knn_self", "linear", "linear_10")
LEADING: tuple[ProtocolName, ...] = ("linear", "knn")
"""The probes that are set beside baselines; the first that was measured leads."""
ANALYSIS_FILE = "analysis.npz"

Measured = dict[str, Result]
"""What `analyse` measured, by key."""

# How many images are points of the map, and how large they are drawn.
_MAP_POINTS, _LEAST_MAP_POINTS, _THUMBNAIL_PX = 500, 4, 32


def analyse(run: Run, images: Splits, data: DataIdentity, *, with_map: bool) -> Measured:
    """`h` and `z` of a finished run, measured with its seed where they are not yet: into
    results.json, and last analysis.npz.

    Where there are labels and a test split: the probes. Where the images carry nuisance factors:
    how well each is read. Always: geometry of the test images (of the training images where there
    are no others), and with `with_map` a 2-D map of `h`.
    """
    section, path = run.section(data), run.path / ANALYSIS_FILE
    unmapped = section is None or not path.exists()
    protocols = _missing(run, images, section) or (("geometry",) if unmapped else ())
    if protocols:
        if section is not None:
            log.info("%s: measuring %s with the seed of the run", run.path, ", ".join(protocols))
        with writing(run.path):
            extracted = _measure(run, images, protocols)
            if unmapped:
                kept = _map(extracted) if with_map else {}
                write_atomically(path, lambda at: save_arrays(at, kept))
        section = run.section(data)
    assert section is not None, "it was measured"
    return _own(section.results)


def _measure(run: Run, images: Splits, protocols: tuple[ProtocolName, ...]) -> ExtractedRun:
    config = load_config(run)
    device = hardware.available(config.device)
    asked = EvaluateConfig(protocols=protocols, taps=TAPS, seed=config.seed, baselines=False)
    trained = open_trained(run, images=images, device=device)
    extracted, protocols = extract_run(trained, asked)
    run.add_arrays(trained.data, about_images(extracted))
    for name in protocols:
        results, arrays = measure_protocol(name, extracted, asked)
        run.add_arrays(trained.data, arrays)
        run.add_results(trained.data, results)
    return extracted


def _missing(run: Run, images: Splits, section: Section | None) -> tuple[ProtocolName, ...]:
    """The protocols that were not measured on these images at both taps with the run's seed, or
    whose values `headwise evaluate` has since replaced by those of other seeds."""
    wanted: tuple[ProtocolName, ...] = ("geometry",)
    if labelled(images):
        wanted += PROTOCOLS + (("factors",) if images.train.factors else ())
    if section is None:
        return wanted
    own, arrays, seeds = _own(section.results), run.arrays(section.data), (load_config(run).seed,)

    def known(name: ProtocolName) -> bool:
        found = [result for result in own.values() if result.protocol == name]
        answers = [f"each/{name}/{tap}" for tap in TAPS if name in PROTOCOLS]
        return (
            {*TAPS} <= {result.where for result in found}
            and all(result.seeds == seeds for result in found)
            and all(key in arrays for key in answers)
        )

    return tuple(name for name in wanted if not known(name))


def _own(results: Mapping[str, Result]) -> Measured:
    """Those that a comparison is made from."""
    return {
        key: result
        for key, result in results.items()
        if result.protocol in (*PROTOCOLS, "geometry", "factors")
        and set(result.where.split("-")) <= set(TAPS)
        and result.against is None
        and result.measure != "cka_runs"
    }


def _map(extracted: ExtractedRun) -> dict[str, np.ndarray]:
    """A 2-D map (t-SNE, from the principal components on) of some test images' `h`; empty where
    they are too few."""
    h, images = extracted.tables["h"].test, extracted.test_images
    if len(h.vectors) < _LEAST_MAP_POINTS:
        return {}
    count = min(_MAP_POINTS, len(h.vectors))
    chosen = torch.randperm(len(h.vectors), generator=rng.generator(0, "map"))[:count]
    perplexity = min(30.0, (count - 1) / 3)
    place = TSNE(init="pca", perplexity=perplexity, random_state=0)
    points = place.fit_transform(h.vectors[chosen].numpy())
    labels = torch.full((count,), -1) if h.labels is None else h.labels[chosen]
    return {
        "map": points.astype(np.float32),
        "map_labels": labels.numpy(),
        "map_thumbnails": _thumbnails(images.select(h.index[chosen]), extracted.extraction).numpy(),
    }


def _thumbnails(images: Images, extraction: ExtractConfig) -> UInt8[Tensor, "n s s 3"]:
    size = min(extraction.augment.size, _THUMBNAIL_PX)
    small = unnormalised(extraction.augment, size)
    batches = whole_batches(images, small, batch_size=512, device="cpu", workers=extraction.workers)
    return torch.cat([(b * 255).round().byte().permute(0, 2, 3, 1) for _, b in batches])
