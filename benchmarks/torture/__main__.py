"""Kill, damage, starve and sanitize, and write what survived into a page (`make torture`).

Some ten minutes on two cores. Exits with 1 if anything did not survive.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests" / "planted")]

import torch  # noqa: E402
from damage_done import damage_images, damage_runs  # noqa: E402
from disk import fill, small_disk  # noqa: E402
from jobs import SMALL, Job, finished, jobs, write_images  # noqa: E402
from kills import kill  # noqa: E402

from headwise.files import write_text  # noqa: E402
from headwise.runs.directory import environment  # noqa: E402
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
DISKS = {
    "pretrain, images in memory": 6,
    "pretrain, files and two workers": 6,
    "compare, two heads": 2,
    "evaluate": 6,
    "embed": 6,
    "report": 6,
}
DIGITS = ["--data", "builtin:digits", "--limit", "60", *SMALL, "--head.output-size", "8"]


Part = Callable[[], list[str] | None]
"""Tries its cases; what went wrong, or None where it cannot be tried here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    parser.add_argument("--only", nargs="+", default=[""], help="words of the lines to try")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases; less is quicker")
    flags = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HEADWISE_CACHE"] = str(folder / "cache")
        torch.set_num_threads(1)  # forks cannot share the threads of OpenMP
        base = folder / "base"
        for what, count, part in parts(folder, prepared(base), flags.share):
            if not any(word in what for word in flags.only):
                continue
            wrong = part()
            survived = "skipped here" if wrong is None else str(count - min(len(wrong), count))
            # Written after every part: one that is tried alone keeps the lines of the others.
            write_line(flags.out, what, f"{count} | {survived}")
            print(f"{what}: {survived} of {count}", *wrong or (), sep="\n", file=sys.stderr)
            failed |= bool(wrong)
    sys.exit(failed)


def write_line(page: Path, what: str, found: str) -> None:
    """Put a line into the page's table, in place of an earlier one of this name."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    lines = dict(re.findall(r"^\| (.+?) \| (\d.*) \|$", old, re.M))
    commit = (environment("cpu")["commit"] or "unknown")[:7]
    lines[what] = f"{found} | {date.today()}, {commit}"
    head = "| what was tried | how often | survived | when, at which commit |"
    rows = [f"| {name} | {cells} |" for name, cells in lines.items()]
    table = "\n".join([head, "| --- | ---: | ---: | --- |", *rows])
    about = f"`make torture`, torch with one thread: {machine()}"
    write_text(page, f"{before}{BEGIN}\n{table}\n\n{about}\n{END}{after}")


def prepared(base: Path) -> dict[str, Job]:
    """All jobs by name, with what they start from."""
    base.mkdir()
    write_images(base / "images")
    first = Job(name="base", words=lambda _: [], end=lambda _: None)
    words = ["pretrain", *DIGITS, "--out", str(base / "run"), "--epochs", "4"]
    finished(first, words, base / "log")
    finished(first, ["evaluate", str(base / "run"), "--protocols", "knn"], base / "log")
    return {job.name: job for job in jobs(base)}


def parts(folder: Path, every: dict[str, Job], share: float) -> Iterator[tuple[str, int, Part]]:
    """What is tried, how often, and how."""
    for name, count in KILLS.items():
        count = max(2, round(count * share))
        trial = partial(kill, every[name], count, folder / f"kills {name}")
        yield f"SIGKILL and SIGTERM at random moments: {name}", count, trial
    for name, count in DISKS.items():
        count = max(2, round(count * share))
        trial = partial(filled, every[name], count, folder / f"disk {name}")
        yield f"full disk: {name}", count, trial
    images, runs = round(500 * share), round(300 * share)
    yield "a damaged image file among sound ones", images, partial(damage_images, images, folder)
    trial = partial(damage_runs, runs, folder, DIGITS)
    yield "a damaged file of a run", runs, trial
    yield (
        "the tests of the C code, built with AddressSanitizer and UBSan",
        1,
        partial(sanitized, folder / "sanitized"),
    )


def filled(job: Job, count: int, folder: Path) -> list[str] | None:
    with small_disk(folder) as disk:
        return None if disk is None else fill(job, count, disk, folder.with_suffix(".log"))


def sanitized(folder: Path) -> list[str] | None:
    """The tests of the compiled code, built with AddressSanitizer and UBSan."""
    compiler = shutil.which("gcc")
    found = sorted((ROOT / "src" / "headwise" / "augment").glob("_views*.so"))
    if compiler is None or not found:
        return None
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
    return [] if passed else [done.stdout[-3000:] + done.stderr[-3000:]]


if __name__ == "__main__":
    main()
