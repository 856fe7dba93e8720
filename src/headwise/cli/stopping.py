"""What a command says when a signal stops it: what is kept, and how to go on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def what_is_kept(command: str, values: Mapping[str, Any]) -> str:
    """A sentence about a command that was stopped, from the values of its flags."""
    out, run, resumed = (values.get(name) for name in ("out", "run", "resume"))
    again = "the same command starts it again"
    match command:
        case "pretrain" | "compare" if resumed is not None:
            return f"{resumed} is as it was; go on with: headwise {command} --resume {resumed}"
        case "pretrain" | "compare" if out is not None and (Path(out) / "config.json").is_file():
            return f"{out} keeps what was done; go on with: headwise {command} --resume {out}"
        case "pretrain" | "compare":
            return f"nothing was written; {again}"
        case "evaluate" if run is None:
            return f"nothing was written; {again}"
        case "evaluate":
            return (
                f"the results of the protocols that were finished are in {run}; the same command "
                "measures all of them again, and --protocols the others"
            )
        case "fusion":
            return f"the results that {run} had are kept; {again}"
        case "embed":
            return f"the finished parts are kept beside {out}; the same command goes on from them"
        case "study" if values.get("do") in ("run", "tune", "work"):
            return "the runs that were finished are kept; the same command goes on with the others"
        case "report":
            return f"every file is the old one or the new one; {again}"
        case _:
            return again
