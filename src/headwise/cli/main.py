"""The command line: dispatch only. Nothing heavy is imported before a command needs it."""

import logging
import sys

HELP = """\
usage: headwise COMMAND [options]

Contrastive pretraining of image encoders, projection head first.

commands:
  pretrain   pretrain an encoder on images, or go on with a run (--resume RUN)
  evaluate   probe a finished run: k-NN and linear, at h and at any tap of the head
  fusion     does the attention of a run's head bring classes together: measures and controls
  theory     what attention over a batch does to its classes: prediction against simulation
  compare    pretrain the same encoder under several heads; a table and a report
  embed      write the representation h of every image of a folder to a parquet file
  doctor     check this installation and say what to do where something is wrong

headwise COMMAND --help lists a command's options.

examples:
  headwise pretrain --data ./photos --encoder resnet50 --out runs/photos
  headwise evaluate runs/photos --data ./labelled --protocols knn linear --taps h z
  headwise fusion runs/transformer --data ./labelled
  headwise compare --data ./labelled --heads identity mlp transformer --out runs/heads
  headwise embed runs/photos ./photos --out features.parquet
"""

COMMANDS = ("pretrain", "evaluate", "fusion", "theory", "compare", "embed", "doctor")


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 bad input, 75 stopped by SIGTERM (its state is saved),
    130 by Ctrl-C. `doctor` exits with 1 where something essential is wrong."""
    sys.exit(_main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("headwise"))
        return 0
    from headwise.errors import UserError, nearest

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("headwise").setLevel(logging.INFO)
    try:
        if argv[0] not in COMMANDS:
            raise UserError(f"no command {argv[0]!r}: {nearest(argv[0], COMMANDS)}")
        if argv[0] == "doctor":
            from headwise.cli.doctor import diagnose, healthy, report

            checks = diagnose()
            print(report(checks))
            return 0 if healthy(checks) else 1
        from headwise.cli import commands

        return commands.run(argv[0], argv[1:])
    except UserError as error:
        return _say(error, 2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            return 0
        place = f" {error.filename}" if error.filename else ""
        return _say(f"cannot read or write{place}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _say("stopped", 130)


def _say(message: object, code: int) -> int:
    print(f"headwise: {message}", file=sys.stderr)
    return code
