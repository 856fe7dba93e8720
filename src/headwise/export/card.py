"""The model card: README.md of an exported encoder."""

from collections.abc import Iterator
from pathlib import Path

from headwise.export.formats import HERE, Exported, Target, loading, preparation
from headwise.files import plain_text
from headwise.model.trained import load_config
from headwise.report.tables.measures import measure_words
from headwise.report.tables.numbers import number_text, value_text
from headwise.report.words import counted, interval_text
from headwise.runs.directory import Run
from headwise.runs.results import Result
from headwise.runs.sections import Section

_LIBRARIES = {"timm": "timm", "torch": "pytorch", "onnx": "onnx"}


def card(to: Target, exported: Exported, run: Run, *, name: str, licence: str) -> str:
    """What the encoder is, how it is loaded, which images it takes, what it was trained on, and
    what was measured. `name`: of the folder, or on the hub. Nothing in it names a place on this
    machine."""
    lines = [
        "---",
        f"library_name: {_LIBRARIES[to]}",
        f"license: {licence}",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        "- image-feature-extraction",
        "- headwise",
        "---",
        "",
        f"# {name}",
        "",
        *_encoder(exported, run),
        "",
        "## Use",
        "",
        *_use(to, exported),
        "",
        "## Data and pretraining",
        "",
        *_training(run),
        "",
        "## Results",
        "",
        *_results(run),
        "",
        "## Licence",
        "",
        f"{licence}." if licence != "other" else "Not stated: ask whoever gave you this encoder.",
    ]
    return plain_text("\n".join(lines) + "\n")


def _encoder(exported: Exported, run: Run) -> Iterator[str]:
    config = load_config(run)
    yield (
        f"An image encoder ({config.encoder.name}), from RGB images of {exported.size} px to a "
        f"representation h of {exported.p} numbers. It was pretrained without labels by "
        "Headwise; it has no classifier."
    )


def _use(to: Target, exported: Exported) -> Iterator[str]:
    if to == "timm" and exported.small_stem:
        yield (
            "**It has a stem for small images, for which timm has no argument: "
            "`timm.create_model` alone cannot load it.** These lines do:"
        )
    elif to == "timm":
        yield f"`{HERE}` is this folder; from the hub, write `hf-hub:` and its name there."
    else:
        yield f"`{HERE}` is this folder. The batch can have any number of images."
    yield from ("", "```python", loading(to, exported), "```", "")
    yield f"Images: {preparation(exported)}."


def _training(run: Run) -> Iterator[str]:
    config = load_config(run)
    names = [section.data for section in run.sections]
    images = next((data.train_images for data in names if data.spec == config.data.spec), None)
    start = config.encoder.weights.partition("@")[0]
    kind, _, place = start.partition(":")
    yield f"- data: `{_public(config.data.spec)}`" + (f", {images:,} images" if images else "")
    yield f"- start weights: {start if kind not in ('run', 'local-dir') else Path(place).name}"
    yield (
        f"- objective {config.objective}, head {config.head.name}, "
        f"{counted(config.epochs, 'epoch')}, batches of {config.batch_size} images, "
        f"{config.optim.name}, seed {config.seed}"
    )
    yield f"- operators of the views: {', '.join(config.augment.ops)}"


def _results(run: Run) -> Iterator[str]:
    found = [(section, _of_h(section)) for section in run.sections]
    if not any(results for _, results in found):
        yield "Nothing was measured (`headwise evaluate`) before this was written."
        return
    for section, results in found:
        if not results:
            continue
        data = section.data
        yield f"On {data.test_images or 0:,} test images of `{_public(data.spec)}`; shares in %."
        yield from ("", "| measure | value | 95 % interval |", "|---|---|---|")
        for result in results:
            low, high = result.interval or (None, None)
            within = "" if low is None or high is None else _interval(result, low, high)
            yield f"| {measure_words(result.key)} | {value_text(result)} | {within} |"
        yield ""
    yield "Intervals are over test images: another pretraining seed can change each value by more."


def _of_h(section: Section) -> list[Result]:
    return [r for r in section.results.values() if r.where == "h" and r.against is None]


def _interval(result: Result, low: float, high: float) -> str:
    if result.unit == "share":
        return interval_text(low, high)
    return f"{number_text(result.unit, low)} to {number_text(result.unit, high)}"


def _public(spec: str) -> str:
    """A data set's own name: not where it lies."""
    return Path(spec).name if "/" in spec or "\\" in spec else spec
