"""All benchmarks, one after the other, into one page (`make bench`)."""

import argparse
import subprocess
import sys
from pathlib import Path

from headwise.files import write_text
from measure import machine

HERE = Path(__file__).parent
SCRIPTS = ("step", "parts", "augment", "loss", "load", "head", "startup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    flags = parser.parse_args()
    page = [
        "# Benchmarks",
        "Written by `make bench`. Medians of rounds in which the contenders take turns.",
        machine(),
    ]
    for name in flags.only:
        print(f"{name} …", file=sys.stderr)
        command = [sys.executable, str(HERE / f"{name}.py")]
        page.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    write_text(flags.out, "\n\n".join(part.strip() for part in page) + "\n")


if __name__ == "__main__":
    main()
