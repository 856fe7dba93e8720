"""One run against another, on the same test images: every value by a paired test."""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.protocols.geometry import cka_between
from headwise.evaluation.statistics.metrics import compare_values
from headwise.evaluation.statistics.tests import PairedTest, paired_permutation_test
from headwise.features.extract import extract
from headwise.model.trained import open_trained
from headwise.runs.directory import EVALUATED, Run
from headwise.runs.results import Result, unlike
from headwise.runs.sections import DataIdentity

log = logging.getLogger("headwise")


def check_other(other: Run) -> None:
    """Raise `UserError` where there is nothing to compare with."""
    if not other.sections:
        raise UserError(
            f"--against must be an evaluated run; {other.path} has no results; "
            f"first: headwise evaluate {other.path}"
        )


def differences(
    run: Run, other: Run, data: DataIdentity, results: Mapping[str, Result], *, seed: int
) -> dict[str, Result]:
    """`difference/KEY` for each of `results` that the other run has on the same images: `value` is
    this run's minus the other's, with a paired test image by image. They describe two networks
    and have no verdict on heads: that takes seeds."""
    section = other.section(data)
    if section is None:
        theirs = "; ".join(section.data.words for section in other.sections)
        log.warning(
            "nothing to compare with %s: its test and training images are not those of this run; "
            "it was evaluated on %s, this run on %s; evaluate both on the same images",
            other.path,
            theirs,
            data.words,
        )
        return {}
    arrays = run.arrays(data), other.arrays(data)
    compared: dict[str, Result] = {}
    apart: dict[str, list[str]] = {}
    for key in [key for key in results if key in section.results]:
        mine, theirs = results[key], section.results[key]
        if found := unlike(mine, theirs):
            setting, *values = found
            here, there = ("not known" if value is None else value for value in values)
            apart.setdefault(f"{setting}: {here} here, {there} there", []).append(key)
        elif test := _test(mine, arrays, seed):
            difference = _difference(mine, test, other)
            compared[difference.key] = difference
    for words, keys in apart.items():
        log.warning("not compared with %s: %s (%s)", other.path, ", ".join(keys), words)
    if not compared:
        log.warning("nothing to compare with %s: no value with the same settings", other.path)
    return compared


def same_geometry(extracted: ExtractedRun, other: Run, *, version: int) -> Iterator[Result]:
    """`cka_runs/h`: linear CKA between the two runs' `h` of the test images; none where the other
    has no model."""
    extraction = extracted.extraction
    if EVALUATED in other.config:
        return
    trained = open_trained(
        other, images=extracted.images, device=extraction.device, seed=extraction.seed
    )
    if trained.config.augment != extraction.augment or "h" not in extracted.tables:
        return
    theirs = extract(trained.model.encoder, None, extracted.test_images, ["h"], extraction)["h"]
    mine = extracted.tables["h"].test
    yield Result(
        protocol="geometry",
        measure="cka_runs",
        where="h",
        unit="score",
        value=cka_between(mine, theirs),
        n=len(mine.index),
        version=version,
        settings={"against": str(other.path)},
    )


def _difference(result: Result, test: PairedTest, other: Run) -> Result:
    """What is not of the difference itself, such as the interval over seeds, is left out."""
    return Result(
        protocol=result.protocol,
        measure=result.measure,
        variant=result.variant,
        metric=result.metric,
        where=result.where,
        unit=result.unit,
        value=test.difference,
        interval=test.interval,
        n=test.n,
        p_value=test.p_value,
        against=str(other.path),
        version=result.version,
    )


def _test(mine: Result, arrays: Sequence[Mapping[str, np.ndarray]], seed: int) -> PairedTest | None:
    """None where nothing is known image by image."""
    each = f"each/{mine.key}"
    if all(each in of_run for of_run in arrays):
        pair = (torch.from_numpy(of_run[each]).double() for of_run in arrays)
        return paired_permutation_test(*pair, seed=seed)
    kinds = ("predictions", "scores", "truth")
    answers = [
        {kind: of_run[f"{kind}/{mine.key}"] for kind in kinds if f"{kind}/{mine.key}" in of_run}
        for of_run in arrays
    ]
    if not all(answers):
        return None
    return compare_values(mine.settings["metric"], *answers, seed=seed)
