"""A study of your own: does a wider head help more at a low temperature? docs/studies.md explains
each line.

    python examples/own_study.py --out runs/own-study

From the command line:

    headwise study run examples/own_study.py:width_and_temperature --out runs/own-study
"""

from dataclasses import replace

from headwise import EvaluateConfig, HeadConfig
from headwise.pretraining.recipes import recipe
from headwise.study import Claim, Contrast, Figure, Group, Study, axis


def width_and_temperature(epochs: int = 17, seeds: int = 5) -> Study:
    """Eight arms: every width at every temperature."""
    base = replace(recipe("demo"), head=HeadConfig(name="mlp"), epochs=epochs, knn_every=0)
    width = axis("width", "head.width", 16, 64, 256, 1024)
    temperature = axis("temperature", "temperature", 0.1, 0.5)
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
        base=base,
        grids=((width, temperature),),
        evaluate=EvaluateConfig(protocols=("knn", "linear"), baselines=False),
        seeds=seeds,
        claims=(claim,),
        figures=(figure,),
    )
