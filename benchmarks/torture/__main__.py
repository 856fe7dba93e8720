"""Kill, damage, starve and sanitize, and write what survived into a page (`make torture`).

Some ten minutes on two cores. Exits with 1 if anything did not survive.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests" / "planted")]

import torch  # noqa: E402
from damage_done import damage_images, damage_runs  # noqa: E402
from disk import fill, small_disk  # noqa: E402
from jobs import SMALL, Job, finished, jobs, write_images  # noqa: E402
from kills import kill  # noqa: E402

from headwise.files import write_text  # noqa: E402
from measure import machine  # noqa: E402

BEGIN, END = "<!-- torture -->", "<!-- /torture -->"
KILLS = {
    "pretrain, images in memory": 13,
    "pretrain, files and two workers": 13,
    "pretrain, two ranks": 6,
    "compare, two heads": 2,
    "evaluate": 8,
    "embed": 8,
}


class Row(NamedTuple):
    """A line of the table."""

    what: str
    tried: int
    wrong: list[str]
    skipped: str = ""

    def cells(self) -> str:
        survived = self.skipped or f"{self.tried - min(len(self.wrong), self.tried)}"
        return f"| {self.what} | {self.tried} | {survived} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    parser.add_argument("--only", nargs="+", default=["kills", "damage", "disk", "sanitizers"])
    parser.add_argument("--share", type=float, default=1.0, help="of the cases; less is quicker")
    flags = parser.parse_args()
    started, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HEADWISE_CACHE"] = str(folder / "cache")
        torch.set_num_threads(1)  # forks cannot share the threads of OpenMP
        for row in tried(folder, flags.only, flags.share):
            print(row.cells(), *row.wrong, sep="\n", file=sys.stderr, flush=True)
            rows.append(row)
    minutes = (time.monotonic() - started) / 60
    text = "\n".join(
        [
            "| what was tried | how often | survived |\n| --- | ---: | ---: |",
            *(row.cells() for row in rows),
            f"\n`make torture` on {date.today()}, {minutes:.0f} minutes, torch with one thread: "
            f"{machine()}",
        ]
    )
    page = flags.out.read_text(encoding="utf-8") if flags.out.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    write_text(flags.out, f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    sys.exit(any(row.wrong for row in rows))


def tried(folder: Path, only: list[str], share: float) -> Iterator[Row]:
    """All parts, each as soon as it is done."""
    base = folder / "base"
    base.mkdir()
    write_images(base / "images")
    every = {job.name: job for job in jobs(base)}
    digits = ["--data", "builtin:digits", "--limit", "60", *SMALL, "--head.output-size", "8"]
    first = Job(name="base", words=lambda _: [], end=lambda _: None)
    words = ["pretrain", *digits, "--out", str(base / "run"), "--epochs", "4"]
    finished(first, words, folder / "log")
    finished(first, ["evaluate", str(base / "run"), "--protocols", "knn"], folder / "log")
    if "kills" in only:
        for name, count in KILLS.items():
            count = max(2, round(count * share))
            wrong = kill(every[name], count, folder / f"kills {name}")
            yield Row(f"SIGKILL and SIGTERM at random moments: {name}", count, wrong)
    if "disk" in only:
        with small_disk(folder / "disk") as disk:
            for job in every.values():
                if job.ranks > 1:
                    continue
                count = max(2, round((2 if job.name.startswith("compare") else 6) * share))
                wrong = [] if disk is None else fill(job, count, disk, folder / "log")
                skipped = "skipped: nothing can be mounted here" if disk is None else ""
                yield Row(f"full disk: {job.name}", count, wrong, skipped)
    if "damage" in only:
        images, runs = round(500 * share), round(300 * share)
        yield Row("a damaged image file among sound ones", images, damage_images(images, folder))
        yield Row("a damaged file of a run", runs, damage_runs(runs, folder, digits))
    if "sanitizers" in only:
        yield sanitized(folder / "sanitized")


def sanitized(folder: Path) -> Row:
    """The tests of the compiled code, built with AddressSanitizer and UBSan."""
    what, compiler = "tests of the C code under AddressSanitizer and UBSan", shutil.which("gcc")
    found = sorted((ROOT / "src" / "headwise" / "augment").glob("_views*.so"))
    if compiler is None or not found:
        return Row(what, 1, [], "skipped: no gcc")
    package = shutil.copytree(ROOT / "src" / "headwise", folder / "headwise")
    source = package / "augment" / "views.c"
    built = [compiler, "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built += ["-fno-math-errno", "-shared", "-fPIC", str(source), "-lm"]
    subprocess.run([*built, "-o", str(package / "augment" / found[0].name)], check=True)
    libraries = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    test = ["-m", "pytest", "-n", "0", "-q", "-s", "tests/augment/test_views_in_c.py"]
    done = subprocess.run(
        [sys.executable, *test], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    passed = done.returncode == 0 and " skipped" not in done.stdout
    return Row(what, 1, [] if passed else [done.stdout[-3000:] + done.stderr[-3000:]])


if __name__ == "__main__":
    main()
