"""Comparing finished runs that were made one by one, perhaps on other machines.

Runs can be compared if they saw the same images and have the same test images. They must have as
many epochs, unless that is all that they differ in. Every other difference of their settings is
what is compared, except for the seed, which tells runs of one arm apart.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwise.comparison.arms import differing, names, own_settings
from headwise.comparison.measuring import Plan, summarise
from headwise.config import to_dict
from headwise.data import Given, Splits, given_splits, open_images
from headwise.data.record import changes, located, read_record
from headwise.errors import UserError
from headwise.files import Json, read_object, write_json
from headwise.model.config_file import CONFIG_VERSION
from headwise.model.own_parts import complete
from headwise.model.trained import load_config
from headwise.own_code import Handed
from headwise.report.words import listed
from headwise.runs.directory import Run, refuse_existing
from headwise.runs.lock import writing

log = logging.getLogger("headwise")

Arms = dict[str, dict[int, Run]]
"""The runs of every arm, by seed."""


def compare_runs(
    runs: Sequence[str | Path | Run],
    out: str | Path,
    images: Given | None = None,
    *,
    data: str | None = None,
    handed: Handed | None = None,
    scratch: bool = True,
) -> Json:
    """Compare finished runs on their test images: summary.json and report.html in `out`.

    Returns the summary. Runs whose settings are the same up to the seed are one arm. What is not
    measured of a run yet is measured now, into its results.json. `images`, or `data`: those of the
    runs, if they are in another place. `handed`: the own code that they were
    made with. Raises `UserError` for runs that cannot be compared.
    """
    out = Path(out)
    refuse_existing(out)
    opened = [Run.open(run, handed=handed) for run in runs]
    arms = grouped(opened)
    for run in opened:
        complete(replace(load_config(run), own_objective=None))  # nothing measures the loss
    images = _images(opened[0], images, data)
    with writing(out):
        refuse_existing(out)
        places = [str(run.path.absolute()) for run in opened]
        config = {"version": CONFIG_VERSION, "runs": places, "scratch": scratch}
        write_json(out / "config.json", config)
        return _compare(arms, out, images, scratch=scratch)


def resume_runs(out: Path, images: Given | None, data: str | None, handed: Handed | None) -> Json:
    """Go on with what `compare_runs` began in `out`."""
    config = read_object(out / "config.json")
    opened = [Run.open(run, handed=handed) for run in config["runs"]]
    with writing(out):
        images = _images(opened[0], images, data)
        return _compare(grouped(opened), out, images, scratch=config["scratch"])


def _compare(arms: Arms, out: Path, images: Splits, *, scratch: bool) -> Json:
    seeds = sorted(set.intersection(*(set(runs) for runs in arms.values())))
    first = next(iter(arms.values()))[seeds[0]]
    plan = Plan(
        arms=tuple(arms),
        seeds=tuple(seeds),
        run=lambda arm, seed: arms[arm][seed],
        data=load_config(first).data,
        scratch=scratch,
    )
    return summarise(plan, out, images, lambda _: None)


def grouped(runs: Sequence[Run]) -> Arms:
    """The runs by arm and seed. Arms are named by what they differ in. Raises `UserError` if the
    runs cannot be compared."""
    if len(runs) < 2:
        raise UserError(f"--runs must name at least two runs; got {len(runs)}")
    _refuse_other_images(runs)
    settings = {run.path: own_settings(load_config(run)) for run in runs}
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(json.dumps(settings[run.path], default=str), []).append(run)
    groups = list(together.values())
    own = [settings[group[0].path] for group in groups]
    _refuse_other_epochs([group[0] for group in groups], own)
    arms = {name: _by_seed(group) for name, group in zip(names(own), groups, strict=True)}
    common = set.intersection(*(set(found) for found in arms.values()))
    if not common:
        seeds = (f"{', '.join(map(str, sorted(found)))} of {name}" for name, found in arms.items())
        raise UserError(
            f"runs that are compared must have seeds in common; got {'; '.join(seeds)}; "
            "pretrain the missing ones"
        )
    left_out = [run.path for found in arms.values() for s, run in found.items() if s not in common]
    if left_out:
        log.warning(
            "left out, because not every arm has their seeds: %s", listed([*map(str, left_out)])
        )
    return arms


def _by_seed(group: Sequence[Run]) -> dict[int, Run]:
    found: dict[int, Run] = {}
    for run in group:
        other = found.setdefault(load_config(run).seed, run)
        if other is not run:
            raise UserError(
                f"{other.path} and {run.path} have the same settings and the same seed; name one"
            )
    return found


def _refuse_other_epochs(firsts: Sequence[Run], own: Sequence[dict[str, Any]]) -> None:
    differ = differing(own)
    if "epochs" in differ and len(differ) > 1:
        place = next(i for i, one in enumerate(own) if one["epochs"] != own[0]["epochs"])
        others = listed([path for path in differ if path != "epochs"])
        raise UserError(
            f"runs that differ in {others} must have as many epochs to be compared; "
            f"{firsts[0].path} has {own[0]['epochs']} and {firsts[place].path} has "
            f"{own[place]['epochs']}; compare runs of one length"
        )


def _refuse_other_images(runs: Sequence[Run]) -> None:
    """Raise `UserError` if the runs saw other images, or have other test images."""
    first, of_first = runs[0], _images_of(runs[0])
    for run in runs[1:]:
        here = _images_of(run)
        known = here["images"] is not None and of_first["images"] is not None
        decisive = ("images", "data.fit", "data.resize") if known else tuple(of_first)
        if any(here[name] != of_first[name] for name in decisive):
            name = next(name for name in of_first if here[name] != of_first[name])
            said = (
                f"; {name} is {of_first[name]!r} in {first.path} and {here[name]!r} in {run.path}"
            )
            raise UserError(
                "runs must have the same training and test images to be compared"
                + (said if name != "images" else f"; those of {first.path} and {run.path} differ")
            )


def _images_of(run: Run) -> dict[str, Any]:
    """How its images were opened, and last, which those are; None if it is not known."""
    record, data = read_record(run.path), load_config(run).data
    apart = ("resident_mib", "cache", "max_bad_fraction")
    settings = {f"data.{name}": v for name, v in to_dict(data).items() if name not in apart}
    test = None if record is None or record.test is None else record.test.fingerprint
    return {**settings, "images": None if record is None else (record.train.fingerprint, test)}


def _images(run: Run, images: Given | None, data: str | None) -> Splits:
    """The images of the run, which must be those that it saw."""
    if images is None:
        images = open_images(located(run.path, load_config(run).data, data))
    splits = given_splits(images)
    if found := changes(run.path, splits):
        raise UserError(
            f"the images of {run.path} must be those of pretraining; they have changed: {found}; "
            "put them back, or say with --data where they are now"
        )
    return splits
