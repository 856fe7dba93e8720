"""A large table of features: reading it, searching it, near copies of a batch; faiss-cpu beside."""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from headwise.explore.neighbours import neighbours
from headwise.explore.table import read_table
from headwise.features.similar import similar_pairs

WIDTH, PART, QUERIES = 512, 20_000, 1_000


def write(path: Path, rows: int) -> None:
    """Vectors with a falling spectrum, as those of an encoder, in row groups."""
    generator = np.random.default_rng(0)
    scale = (1 + np.arange(WIDTH, dtype=np.float32)) ** -0.5
    writer = None
    for start in range(0, rows, PART):
        size = min(PART, rows - start)
        vectors = generator.standard_normal((size, WIDTH), np.float32) * scale
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
        part = pa.table({"path": [f"{i:07d}.jpg" for i in range(start, start + size)], "h": values})
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    assert writer is not None, "there are rows"
    writer.close()


def row(name: str, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {name} | {seconds:.3g} | {peak:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--short", action="store_true", help="a tenth of the rows")
    flags = parser.parse_args()
    rows = flags.rows // 10 if flags.short else flags.rows
    print(
        "## Search and duplicates\n\n"
        f"A table of {rows:,} rows of {WIDTH} numbers, read from parquet once. One call each, on "
        "a machine that other work may share. GiB: peak memory of the process so far, the table "
        f"and the libraries included. Near copies: all pairs of {QUERIES:,} rows with any row of "
        "the table whose cosine is at least 0.95. faiss: exact search by its flat index.\n\n"
        "|  | seconds | GiB |\n| --- | ---: | ---: |",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.parquet"
        write(path, rows)
        found = []
        row("read the table", lambda: found.append(read_table(path)))
    h = found[0].h
    row("search, 1 query, k = 20", lambda: neighbours(h[5:6], h, 20))
    row(f"near copies of {QUERIES:,} rows", lambda: similar_pairs(h[:QUERIES], h, 0.95))
    row(f"{QUERIES:,} queries, k = 20", lambda: neighbours(h[:QUERIES], h, 20))
    array, dot = h.numpy(), faiss.METRIC_INNER_PRODUCT
    row("faiss, 1 query, k = 20", lambda: faiss.knn(array[5:6], array, 20, metric=dot))
    many = array[:QUERIES]
    row(f"faiss, {QUERIES:,} queries, k = 20", lambda: faiss.knn(many, array, 20, metric=dot))
    print(f"\n{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")


if __name__ == "__main__":
    main()
