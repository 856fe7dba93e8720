"""Whether the demo's conclusions are the same at other first seeds, with other numbers of threads
and on other processors: docs/statistics.md.

    python benchmarks/conclusions.py --out runs/conclusions

Finished comparisons are kept: call it again to continue after an interruption.
"""

import argparse
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

from headwise.files import write_text
from headwise.report.reading.summary import Summary, read_summary
from headwise.report.words import interval_text, percent
from measure import machine

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- conclusions -->", "<!-- /conclusions -->"
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
CONDITIONS: dict[str, tuple[int, int, dict[str, str]]] = {
    "seeds 0 to 4, 2 threads": (0, 2, {}),
    "seeds 0 to 4, 1 thread": (0, 1, {}),
    "seeds 5 to 9, 1 thread": (5, 1, {}),
    "seeds 10 to 14, 1 thread": (10, 1, {}),
    "seeds 0 to 4, 2 threads, AVX2 float32": (0, 2, AVX2),
}
"""First seed, threads and environment."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "statistics.md")
    parser.add_argument("--heads", nargs="+", default=["identity", "mlp", "transformer"])
    parser.add_argument("--recipe", default="demo")
    flags = parser.parse_args()
    found = {}
    for place, (words, (seed, threads, environment)) in enumerate(CONDITIONS.items()):
        if environment and torch.backends.cpu.get_cpu_capability() == "AVX2":
            continue  # the other conditions are this one
        out = flags.out / str(place)
        if not (out / "summary.json").exists():
            compare(flags, out, seed, threads, environment)
        found[words] = read_summary(out / "summary.json")
    how = f"`benchmarks/conclusions.py --out runs/conclusions` on {date.today()}: {machine()}"
    text = f"{table(found)}\n\n{how}"
    print(text)
    page = flags.page.read_text(encoding="utf-8")
    if BEGIN in page:
        before, _, rest = page.partition(BEGIN)
        write_text(flags.page, f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def compare(
    flags: argparse.Namespace, out: Path, seed: int, threads: int, environment: dict[str, str]
) -> None:
    """In a process of its own: the capability of the processor is read when torch starts."""
    new = ["--recipe", flags.recipe, "--seed", str(seed), "--heads", *flags.heads, "--out", out]
    words = ["--resume", out] if (out / "config.json").exists() else new
    subprocess.run(
        [sys.executable, "-m", "headwise", "compare", *map(str, words), "--threads", str(threads)],
        env={**os.environ, **environment, "OMP_NUM_THREADS": str(threads)},
        check=True,
    )


def table(found: dict[str, Summary]) -> str:
    """One row for each condition, one column for each pair of heads."""
    first = next(iter(found.values()))
    pairs = [(one.a, one.b) for one in first.between("heads", first.leading)]
    lines = [["condition", *(f"{a} − {b}" for a, b in pairs)], ["---"] * (1 + len(pairs))]
    for words, summary in found.items():
        cells = [
            f"{percent(one.value, signed=True)} "
            f"({interval_text(*one.interval, signed=True) if one.interval else ''}): {one.verdict}"
            for one in summary.between("heads", summary.leading)
        ]
        lines.append([words, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
