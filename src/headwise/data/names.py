"""The names of many images in one array of bytes."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

ERRORS = "surrogateescape"  # file names may hold bytes that are not UTF-8


@dataclass(frozen=True, eq=False)
class Names(Sequence[str]):
    """A sequence of strings without an object for each: it takes a third of the memory and loads at
    once. In a forked worker it copies no memory, as reference counts of objects would."""

    text: UInt8[np.ndarray, " bytes"]
    """All names in UTF-8, one after another."""
    starts: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> "Names": ...
    def __getitem__(self, i: int | slice) -> "str | Names":
        if isinstance(i, slice):
            return Names(self.text, self.starts[i], self.ends[i])
        return self.text[self.starts[i] : self.ends[i]].tobytes().decode(errors=ERRORS)

    def select(self, index: Int64[np.ndarray, " m"]) -> "Names":
        """Return the names at `index`, in this order."""
        return Names(self.text, self.starts[index], self.ends[index])

    def digests(self, key: str = "") -> UInt64[np.ndarray, " n"]:
        """Return 64 bits for each name, which depend on nothing else but `key`."""
        return digests(self.encoded(), key)

    def encoded(self) -> Iterator[bytes]:
        """Yield the bytes of each name."""
        text = self.text.tobytes()
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield text[start:end]


def digests(parts: Iterable[bytes], key: str = "") -> UInt64[np.ndarray, " n"]:
    """Return 64 bits for each part, the same on every machine."""
    secret = key.encode()
    joined = b"".join(hashlib.blake2b(p, digest_size=8, key=secret).digest() for p in parts)
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def as_names(names: Iterable[str]) -> Names:
    if isinstance(names, Names):
        return names
    encoded = [name.encode(errors=ERRORS) for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return contiguous_names(np.frombuffer(b"".join(encoded), np.uint8), ends)


def contiguous_names(text: UInt8[np.ndarray, " bytes"], ends: Int64[np.ndarray, " n"]) -> Names:
    """Return names that each start where the previous one ends."""
    return Names(text, np.concatenate([[0], ends])[:-1], ends)
