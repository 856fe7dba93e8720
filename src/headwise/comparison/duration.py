"""How long a comparison takes, said before it begins and after every seed."""

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from headwise import augment
from headwise.data import Images
from headwise.model.config import PretrainConfig
from headwise.pretraining.loop import prepare, train_step
from headwise.report.words import counted, duration

log = logging.getLogger("headwise")

_STEPS, _SECONDS = 20, 3.0
"""As many steps are timed, or as many as fit in so long; the first two warm up."""


def remaining(
    runs: Mapping[str, Sequence[PretrainConfig]], train: Images, seeds: int
) -> Callable[[int], None]:
    """Say how long pretraining these runs, by arm, takes. To be called with every seed that is
    done, to say how long the others take."""
    started = time.monotonic()
    if runs:
        seconds = sum(len(some) * training_seconds(some[0], train) for some in runs.values())
        log.info(
            "%s to train: about %s on this machine, by a few timed steps of each arm; measuring "
            "them and the baselines comes on top; it can be stopped and resumed",
            counted(sum(map(len, runs.values())), "run"),
            duration(seconds),
        )
    done = 0

    def seed_is_done(seed: int) -> None:
        nonlocal done
        done += 1
        if done < seeds:
            left = (time.monotonic() - started) / done * (seeds - done)
            log.info("seed %d is done; about %s left", seed, duration(left))

    return seed_is_done


def training_seconds(config: PretrainConfig, train: Images) -> float:
    """Of all steps, from a few."""
    resolved, state, train, target = prepare(config, train)
    batches = augment.view_batches(
        train,
        resolved.augment,
        batch_size=resolved.batch_size,
        steps=range(_STEPS),
        seed=resolved.seed,
        device=resolved.device,
        workers=resolved.workers,
    )
    ends = [time.monotonic()]
    for views in batches:
        known = target and target.at(views.shown.to(resolved.device))
        train_step(resolved, state, views.pixels, 0.0, known)
        ends.append(time.monotonic())
        if len(ends) > 3 and ends[-1] - ends[0] > _SECONDS:
            break
    shortest = min(after - before for before, after in itertools.pairwise(ends[2:]))
    return shortest * resolved.epochs * (len(train) // resolved.batch_size)
