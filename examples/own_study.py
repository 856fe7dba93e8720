"""A study of your own: does a wider head help more at a low temperature? docs/studies.md explains
each line.

    python examples/own_study.py --out runs/own-study

From the command line:

    headwise study run examples/own_study.py:width_and_temperature --out runs/own-study
"""

import argparse
from dataclasses import replace
from pathlib import Path

from headwise import EvaluateConfig, HeadConfig
from headwise.pretraining.recipes import recipe
from headwise.report import write_study_report
from headwise.report.reading.study import read_findings
from headwise.study import Claim, Contrast, Figure, Group, Study, axis, run_study


def width_and_temperature(epochs: int = 17, seeds: int = 5) -> Study:
    """Eight arms: every width at every temperature."""
    low, high = (Group(levels={"temperature": t}, along="width") for t in ("0.1", "0.5"))
    claim = Claim(
        name="width-at-low-temperature",
        says="A wider head helps more at a low temperature.",
        source="an example",
        contrasts=(Contrast(name="slope, 0.1 − 0.5", plus=low, minus=high),),
        margin=0.01,
    )
    figure = Figure(
        name="width",
        title="h under a linear probe, by width of the head",
        kind="lines",
        along="width",
        by="temperature",
    )
    return Study(
        name="width-and-temperature",
        asks="Does a wider head help more at a low temperature?",
        base=replace(recipe("demo"), head=HeadConfig(name="mlp"), epochs=epochs, knn_every=0),
        grids=(
            (
                axis("width", "head.width", 16, 64, 256, 1024),
                axis("temperature", "temperature", 0.1, 0.5),
            ),
        ),
        evaluate=EvaluateConfig(protocols=("knn", "linear"), baselines=False),
        seeds=seeds,
        claims=(claim,),
        figures=(figure,),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/own-study"))
    parser.add_argument("--epochs", type=int, default=17)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    run_study(width_and_temperature(arguments.epochs, arguments.seeds), arguments.out)
    for claim in read_findings(arguments.out).claims:
        print(f"{claim.says} {claim.answer}: {claim.words}")
    print(write_study_report(arguments.out))


if __name__ == "__main__":
    main()
