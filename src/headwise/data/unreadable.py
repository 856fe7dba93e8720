"""Images that cannot be read: how many of a split may be, and one line about them."""

import functools
import logging
from collections.abc import Mapping
from typing import NamedTuple

from headwise.errors import UserError

logger = logging.getLogger("headwise")

Unreadable = list[tuple[str, str]]
"""Images that could not be read: (id, reason)."""


class Tolerance(NamedTuple):
    """How much of a split may be unreadable."""

    where: str
    """The split in words, such as "photos (test)"."""
    n: int
    """The split's images, with those that are known to be unreadable."""
    fraction: float

    def check(self, unreadable: Mapping[str, str]) -> None:
        """Raise `UserError` if these, with their reasons, are too many."""
        if len(unreadable) == self.n:
            raise UserError(
                f"{self.where} must hold a readable image; "
                f"none of {self.n} is: {_named(unreadable)}"
            )
        if len(unreadable) > self.fraction * self.n:
            raise UserError(
                f"{self.where}: at most {self.fraction:.3g} of the images may be unreadable; "
                f"{len(unreadable)} of {self.n} are: {_named(unreadable)}: "
                "remove them or raise max_bad_fraction"
            )

    def say(self, unreadable: Mapping[str, str], done: str) -> None:
        """Warn of these, with what is done about them; once in a process."""
        if unreadable:
            _warn(
                f"{self.where}: {done} {len(unreadable)} unreadable of {self.n} images: "
                f"{_named(unreadable)}"
            )


def _named(unreadable: Mapping[str, str]) -> str:
    """The first ten with their reasons, which may begin with the image's id."""
    first = [
        f"{id} ({reason.removeprefix(f'{id}: ')})" for id, reason in list(unreadable.items())[:10]
    ]
    return "; ".join([*first, "…"] if len(unreadable) > 10 else first)


@functools.cache
def _warn(line: str) -> None:
    """Many protocols read the same images."""
    logger.warning("%s", line)
