"""One run against another, on the same test images: every value by a paired test."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from headwise.errors import UserError
from headwise.evaluation.protocols.geometry import cka_between
from headwise.evaluation.statistics.metrics import compare_values
from headwise.evaluation.statistics.tests import PairedTest, paired_permutation_test, verdict
from headwise.evaluation.subject import Subject
from headwise.features.extract import extract
from headwise.model.trained import load_model
from headwise.runs.directory import Run
from headwise.runs.results import Result

log = logging.getLogger("headwise")


def check_other(other: Run) -> None:
    """Raise `UserError` where there is nothing to compare with."""
    if not other.results:
        raise UserError(
            f"--against must be an evaluated run; {other.path} has no results; "
            f"first: headwise evaluate {other.path}"
        )


def differences(run: Run, other: Run, names: Iterable[str], *, seed: int) -> dict[str, Result]:
    """`difference/NAME` for every value that both runs have on the same images: `value` is this
    run's minus the other's, with a paired test image by image. Each test stands alone: of twenty
    equal values one is called different."""
    results, arrays = (run.results, other.results), (run.arrays, other.arrays)
    found = {name: _test(name, results, arrays, seed) for name in names}
    tests = {name: test for name, test in found.items() if test is not None}
    if not tests:
        log.warning("nothing to compare with %s: no value on the same test images", other.path)
    return {
        f"difference/{name}": {
            "value": test.difference,
            "n": test.n,
            "interval": list(test.interval),
            "p_value": test.p_value,
            "verdict": verdict(test),
            "against": str(other.path),
            "protocol": "difference",
            **_about(results[0][name]),
        }
        for name, test in tests.items()
    }


def same_geometry(subject: Subject, other: Run) -> Iterator[tuple[str, Result]]:
    """`cka_runs/h`: linear CKA between the two runs' `h` of the test images."""
    config, model = load_model(other)
    how = subject.how
    if config.augment != how.augment or "h" not in subject.tables:
        return
    model.to(how.device)
    theirs = extract(model.encoder, None, subject.shown, ["h"], how)["h"]
    mine = subject.tables["h"].test
    yield (
        "cka_runs/h",
        {
            "value": cka_between(mine, theirs),
            "n": len(mine.index),
            "against": str(other.path),
            "protocol": "geometry",
        },
    )


def _test(
    name: str,
    results: Sequence[dict[str, Result]],
    arrays: Sequence[dict[str, np.ndarray]],
    seed: int,
) -> PairedTest | None:
    mine, theirs = results[0][name], results[1].get(name)
    if theirs is None or _about(mine) != _about(theirs):
        return None
    each = f"each/{name}"
    if all(each in found for found in arrays):
        pair = (torch.from_numpy(found[each]).double() for found in arrays)
        return paired_permutation_test(*pair, seed=seed)
    kinds = ("predictions", "scores", "truth")
    answers = [
        {kind: found[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in found}
        for found in arrays
    ]
    if not all(answers):
        return None
    return compare_values(mine["metric"], *answers, seed=seed)


def _about(result: Result) -> dict[str, Any]:
    """What must agree for two values to be comparable."""
    images = "target_fingerprint" if "target_fingerprint" in result else "fingerprint"
    return {key: result[key] for key in ("version", images)}
