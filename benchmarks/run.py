"""Run all benchmarks, one after the other, and write one page (`make bench`)."""

import argparse
import subprocess
import sys
from pathlib import Path

from headwise.files import write_text
from measure import machine

HERE = Path(__file__).parent
# Each script, with its arguments for a short run.
SCRIPTS = {
    "step": ("--encoders", "resnet-small", "resnet18", "--rounds", "2"),
    "parts": ("--rounds", "2"),
    "augment": ("--rounds", "2"),
    "loss": ("--sizes", "128", "512", "2048", "4096", "--rounds", "3"),
    "load": (),
    "head": ("--max-tokens", "8192"),
    "startup": ("--rounds", "2"),
    "cost": (),
    "fusion": ("--images", "256"),
    "search": ("--short",),
    "evaluation": ("--train", "10000", "--test", "2000", "--rounds", "1"),
}
HEAD = """# Benchmarks

`make bench` writes this page. Each section is the output of one script. Its command, machine, \
versions and commit stand below it.

Most numbers are medians of several rounds, in which the contenders take turns. Sections that \
measure in another way say so. Compare numbers within one table only: two sections that measure \
the same thing were run at different times, and their numbers differ.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--short", action="store_true", help="fewer rounds and sizes")
    flags = parser.parse_args()
    sections, about = kept(flags.out), machine()
    failed = []
    for name in flags.only:
        print(f"{name} …", file=sys.stderr)
        options = SCRIPTS[name] if flags.short else ()
        command = [f"benchmarks/{name}.py", *options]
        done = subprocess.run(
            [sys.executable, *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            failed.append(name)
            continue
        title, _, text = done.stdout.strip().partition("\n")
        sections[title] = f"{text.strip()}\n\n`{' '.join(command)}` · {about}"
        # Written after every script, so that finished sections are kept if a later one fails.
        page = [HEAD, *(f"{title}\n\n{text}\n" for title, text in sections.items())]
        write_text(flags.out, "\n".join(page))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def kept(path: Path) -> dict[str, str]:
    """The sections of the page by title, including those of scripts that do not run now."""
    if not path.exists():
        return {}
    _, *parts = path.read_text(encoding="utf-8").split("\n## ")
    pairs = (part.partition("\n") for part in parts)
    return {f"## {title}": text.strip() for title, _, text in pairs}


if __name__ == "__main__":
    main()
