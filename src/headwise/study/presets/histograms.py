"""SimCLR's figure 6: crops of one image share a histogram of pixel values, until colours are
distorted. Nothing is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from headwise.augment import AugmentConfig, Operator, resolve, unnormalised, view_batches
from headwise.augment.batches import batch_index
from headwise.config import to_dict
from headwise.data import Images, open_images
from headwise.errors import UserError
from headwise.evaluation.statistics.tests import bootstrap
from headwise.files import Json, write_json
from headwise.report.pages.rendering import write_drawings
from headwise.report.plots.drawing import COLOURS, WIDTH_INCHES, Drawing, csv_text, finish, style
from headwise.report.reading.study import (
    FINDINGS_FILE,
    Answer,
    ClaimFound,
    Picture,
    StudyFindings,
    Tested,
)
from headwise.runs.directory import refuse_existing
from headwise.runs.environment import environment
from headwise.study.design import Axis, Claim, Study
from headwise.study.presets import PRESETS
from headwise.study.presets.budgets import SIMCLR, Budget, base, only

BINS = 32
MOST = 500
"""Images that are compared with each other."""
_STEPS = 2
_MARGIN = 0.03

CLAIM = Claim(
    name="crops-share-a-histogram",
    says="Random crops of one image share a histogram of pixel values, which colour distortion "
    "changes.",
    source=f"{SIMCLR}, Figure 6",
    paper="shown as a picture; no number",
    contrasts=(),
)
KINDS: dict[str, tuple[Operator, ...]] = {
    "crops": ("crop",),
    "colours distorted": ("crop", "colour", "grey"),
}


class Histograms(NamedTuple):
    """Of views of `n` images: shares of the pixels in each bin, by channel."""

    first: Float[Tensor, "n 3 bins"]
    second: Float[Tensor, "n 3 bins"]


def pixel_histograms(budget: Budget, data: Sequence[str]) -> Study:
    """What is asked. `measured_histograms` answers it; its arms are ways to make views, and nothing
    is trained."""
    start = base(budget, only("pixel-histograms", data))
    levels: dict[str, Json] = {name: {"augment.ops": list(ops)} for name, ops in KINDS.items()}
    return Study(
        name="pixel-histograms",
        asks=PRESETS["pixel-histograms"],
        base=replace(start, data=replace(start.data, limit=MOST)),
        grids=((Axis(name="views", levels=levels),),),
        seeds=1,
        claims=(CLAIM,),
        takes="some seconds; nothing is trained",
    )


def run_histograms(study: Study, out: Path, command: str = "") -> None:
    """Write findings.json and the picture into `out`. `command`: what is typed to do so, for the
    page. Raises `UserError` where `out` exists."""
    refuse_existing(out, resumable=False)
    findings, drawing = measured_histograms(study, open_images(study.base.data).train)
    made = environment("cpu")
    commit = str(made["commit"] or "unknown")[:7]
    machine = str(made["device_name"])
    findings = replace(findings, command=command, commit=commit, machine=machine)
    write_drawings(out / "figures", [drawing])
    write_json(out / FINDINGS_FILE, to_dict(findings))


def measured_histograms(study: Study, images: Images) -> tuple[StudyFindings, Drawing]:
    """How often crops of one image have nearer histograms than crops of two, without and with
    colour distortion, and a picture of the histograms of two images. Raises `UserError` for fewer
    than two images."""
    spec, seed, size = study.base.data.spec, study.base.seed, study.base.augment.size or 32
    if len(images) < 2:
        raise UserError(f"pixel-histograms needs at least 2 images; {spec} has {len(images)}")
    n = min(MOST, len(images))
    chosen = images.select(torch.linspace(0, len(images) - 1, n).long())
    views = {name: histograms(chosen, ops, size, seed) for name, ops in KINDS.items()}
    with style():
        drawing = _drawing(views)
    picture = Picture(name=drawing.name, title=drawing.title, description=drawing.description)
    findings = StudyFindings(
        name=study.name,
        asks=study.asks,
        scale=f"{n} images of {spec} at {size} px; nothing is trained",
        axes={},
        seeds=1,
        arms=(),
        claims=(_claim(*(nearer(steps[0]) for steps in views.values())),),
        figures=(),
        pictures=(picture,),
    )
    return findings, drawing


def histograms(images: Images, ops: tuple[Operator, ...], size: int, seed: int) -> list[Histograms]:
    """Two views of every image, several times. Crops do not depend on the other operators."""
    config = unnormalised(resolve(AugmentConfig(ops=ops, size=size, strength=1.0), images), size)
    n, steps = len(images), range(_STEPS)
    batches = view_batches(
        images, config, batch_size=n, steps=steps, seed=seed, device="cpu", workers=0
    )
    found = []
    for step, batch in zip(steps, batches, strict=True):
        order = batch_index(n, n, step, seed).argsort()
        found.append(Histograms(*(shares(half[order]) for half in batch.pixels.split(n))))
    return found


def shares(pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 bins"]:
    """The share of the pixels in each of `BINS` equal bins, by channel."""
    bins = (pixels.flatten(2) * BINS).long().clamp(0, BINS - 1)
    counts = torch.zeros(*bins.shape[:2], BINS).scatter_add_(2, bins, torch.ones(bins.shape))
    return counts / bins.shape[2]


def nearer(views: Histograms) -> Float[Tensor, " n"]:
    """For each image, the share of the other images whose second view has a histogram farther from
    that of its first view than its own second view has; ties count half. By chance it is 0.5.
    The distance is half of the absolute differences, mean over channels."""
    first, second = (part.flatten(1) for part in views)
    distance = torch.cdist(first, second, p=1)
    own = distance.diagonal()[:, None]
    farther = (distance > own).double() + (distance == own).double() / 2
    return (farther.sum(1) - 0.5) / (len(first) - 1)


def _claim(plain: Tensor, distorted: Tensor) -> ClaimFound:
    tested = (
        _tested("crops − chance", plain - 0.5),
        _tested("crops − colours distorted", plain - distorted),
    )
    answers = [one.answer for one in tested]
    order: tuple[Answer, ...] = ("contradicted", "cannot tell", "equivalent", "supported")
    return ClaimFound(
        name=CLAIM.name,
        says=CLAIM.says,
        source=CLAIM.source,
        paper=CLAIM.paper,
        answer=next(answer for answer in order if answer in answers),
        words=f"Of two other crops, the one of the same image has the nearer histogram in "
        f"{100 * plain.mean():.1f} % of the cases, and in {100 * distorted.mean():.1f} % with "
        "colour distortion; by chance it would be 50 %.",
        tested=tested,
    )


def _tested(name: str, gained: Float[Tensor, " n"]) -> Tested:
    """The mean over images, with a bootstrap over them: nothing is trained, so there are no
    seeds."""
    low, high = bootstrap(lambda rows: gained[rows].mean().item(), len(gained), seed=0)
    answer: Answer = "cannot tell"
    verdict = "not shown"
    if low > 0 or high < 0:
        answer, verdict = "supported" if low > 0 else "contradicted", "shown over images"
    elif max(-low, high) < _MARGIN:
        answer, verdict = "equivalent", "equivalent within 3 points"
    return Tested(
        name=name,
        measure="nearer histogram",
        expects="above",
        unit="points",
        value=gained.mean().item(),
        interval=(low, high),
        answer=answer,
        verdict=verdict,
        seeds=1,
    )


def _drawing(views: dict[str, list[Histograms]]) -> Drawing:
    """Two images, four views each."""
    figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    rows = []
    values = [(bin + 0.5) / BINS for bin in range(BINS)]
    for row, (kind, steps) in zip(panels, views.items(), strict=True):
        for image, (axes, which) in enumerate(zip(row, (0, -1), strict=True)):
            lines = [part[which].mean(0) for step in steps for part in step]
            for view, line in enumerate(lines):
                axes.plot(values, line, color=COLOURS[view], linewidth=1.0)
                rows += [
                    (kind, image + 1, view + 1, v, s)
                    for v, s in zip(values, line.tolist(), strict=True)
                ]
            axes.set_title(f"image {image + 1}, {kind}", fontsize=8)
    figure.supxlabel("pixel value, 1 is white", fontsize=8.5)
    figure.supylabel("share of the pixels, all channels", fontsize=8.5)
    return finish(
        figure,
        "pixel-histograms",
        "Histograms of pixel values of four crops of each of two images",
        "Without colour distortion the crops of one image have similar histograms, which differ "
        "from those of the other image. With colour distortion they differ too.",
        csv_text(("views", "image", "view", "value", "share"), rows),
    )
