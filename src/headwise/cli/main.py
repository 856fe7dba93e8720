"""The command line: dispatch only. Nothing heavy is imported before a command needs it."""

import logging
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from headwise.cli.stopping import what_is_kept
from headwise.cli.terminal import complain, degrade_signs, first_rank, open_closed_streams
from headwise.errors import UserError, nearest
from headwise.runtime.interrupts import Interrupted, Terminated, ends_on_signals

if TYPE_CHECKING:
    from headwise.cli.flags import Flag
    from headwise.cli.words import CommandLine

HELP = """\
usage: headwise COMMAND [options]

Contrastive pretraining of image encoders, built to compare projection heads.

commands:
  pretrain   pretrain an encoder on images, or continue a run (--resume RUN)
  evaluate   measure a finished run: k-NN, linear probes and more, at any tap of the head
  fusion     test whether the attention of a run's head brings classes together
  theory     predict what attention over a batch does to its classes, and check it
  compare    pretrain the same encoder under several heads; a table and a report
  study      run a grid of settings and seeds, and say what it shows of a paper's claims
  embed      write the representation h of every image to a parquet file
  search     find the images of such a table that are most similar to one image
  duplicates find copies and near copies, across training and test images first
  select     choose the images to label next, with a reason for each
  explore    write a page to look at the images of a table on a map of h
  export     write the encoder for timm, torch or onnxruntime; verified, with a model card
  results    print every number of runs and comparisons as one table: CSV, Markdown or LaTeX
  report     write the page of a run or a comparison again, without measuring
  doctor     check this installation, and say what to do about what is wrong

headwise COMMAND --help shows a command's main flags; --help all shows every flag.
headwise --version prints the version.

examples:
  headwise pretrain --data ./photos --encoder resnet50 --out runs/photos
  headwise evaluate runs/photos --data ./labelled --protocols knn linear --taps h z
  headwise fusion runs/transformer --data ./labelled
  headwise compare --data ./labelled --heads identity mlp transformer --out runs/heads
  headwise embed runs/photos ./photos --out features.parquet
"""

COMMANDS = (
    "pretrain",
    "evaluate",
    "fusion",
    "theory",
    "compare",
    "study",
    "embed",
    "search",
    "duplicates",
    "select",
    "explore",
    "export",
    "results",
    "report",
    "doctor",
)


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 bad input, 75 stopped by SIGTERM (its state is saved),
    130 by Ctrl-C. `doctor` exits with 1 where something essential is wrong."""
    open_closed_streams()
    degrade_signs()
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in ([], ["-h"], ["--help"], ["help"]):
        print(HELP, end="")
        sys.exit(0)
    if words[0] == "--version":
        print(metadata.version("headwise"))
        sys.exit(0)
    from headwise.cli.words import read_words

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("headwise").setLevel(logging.INFO if first_rank() else logging.ERROR)
    line = given = None
    try:
        with ends_on_signals():
            line = command_line(words[0])
            given = read_words(line, words[1:])
            if given.help == "no":
                if words[1:2] != [line.light] and any(f.path == "threads" for f in line.flags):
                    from headwise.runtime.hardware import use_threads

                    use_threads(given.values.get("threads"))
                line.run(given)
            else:
                from headwise.cli.help import help_text

                print(help_text(given), end="")
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        complain(f"stopped; {what_is_kept(words[0], {} if given is None else given.values)}")
        sys.exit(75 if isinstance(stop, Terminated) else 130)
    except (UserError, Interrupted, OSError) as error:
        flags = () if line is None else line.flags
        sys.exit(exit_code(error, words, flags))
    sys.exit(0)


def exit_code(error: Exception, words: list[str], flags: tuple["Flag", ...]) -> int:
    """Say in one line why a command ended early; its exit code."""
    match error:
        case UserError():
            from headwise.cli.flags import in_flags

            complain(in_flags(str(error), flags, words))
        case Interrupted():
            complain(error)
            return error.exit_code
        case BrokenPipeError():
            # The reader has enough. Without this, Python complains once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case OSError():
            place = f" {error.filename}" if error.filename else ""
            complain(f"cannot read or write{place}: {error.strerror or error}")
    return 2


def command_line(name: str) -> "CommandLine[Any]":
    """The command of this name. Raises `UserError` for an unknown one."""
    match name:
        case "pretrain":
            from headwise.cli.pretrain import LINE
        case "evaluate":
            from headwise.cli.evaluate import LINE
        case "fusion":
            from headwise.cli.fusion import LINE
        case "theory":
            from headwise.cli.theory import LINE
        case "compare":
            from headwise.cli.compare import LINE
        case "study":
            from headwise.cli.study import LINE
        case "embed":
            from headwise.cli.embed import LINE
        case "search":
            from headwise.cli.search import LINE
        case "duplicates":
            from headwise.cli.duplicates import LINE
        case "select":
            from headwise.cli.select import LINE
        case "explore":
            from headwise.cli.explore import LINE
        case "export":
            from headwise.cli.export import LINE
        case "results":
            from headwise.cli.results import LINE
        case "report":
            from headwise.cli.report import LINE
        case "doctor":
            from headwise.cli.doctor import LINE
        case _:
            raise UserError(f"no command {name!r}: {nearest(name, COMMANDS)}")
    return LINE
