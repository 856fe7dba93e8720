"""results.json of schema 1, which Headwise 0.1 wrote: one dictionary of results of all data sets.

A result's name was `MEASURE/WHERE`, and its settings lay beside its value. The names are those of
0.1 and stay as they are, whatever protocols come later.
"""

from collections.abc import Mapping, Sequence

from headwise.runs.results import Result, Settings, Unit
from headwise.runs.sections import DataIdentity, Section

_METRICS = ("top5", "per_class", "nmi", "ari")
# Measures of which there were several, named after what varied.
_FAMILIES = {
    "semi": ("semi",),
    "factors": ("factor",),
    "transformations": ("transformation",),
    "robustness": ("robustness", "invariance"),
}
_SHARES = (
    "knn",
    "linear",
    "cluster",
    "semi",
    "finetune",
    "transfer",
    "transformations",
    "leakage",
    "robustness",
)
_UNITS: dict[str, Unit] = {
    "rank": "rank",
    "uniformity": "nat",
    "renyi": "nat",
    "alignment": "distance",
    "invariance": "cosine",
    "fusion_gain": "gain",
    "fusion_gain_untrained": "gain",
    "fusion_gain_h": "gain",
    "fusion_slope": "slope",
    "fusion_twin_mass": "share",
    "fusion_self_mass": "share",
    "fusion_other_mass": "share",
    "fusion_nn1": "share",
}
_GRADED = ("crop", "colour", "grey", "blur", "noise", "sobel", "cutout")
_TASKS = ("grey", "rotation", "noise", "sobel")
_FIELDS = (
    "value",
    "interval",
    "std",
    "standard_error",
    "n",
    "seeds",
    "chance",
    "p_value",
    "verdict",
    "version",
)
_ABOUT = ("protocol", "data", "fingerprint")


def lift_results(results: Mapping[str, Settings], classes: Sequence[str]) -> tuple[Section, ...]:
    """The sections of the results of a file of schema 1, by each result's own `data` and
    `fingerprint`; a result without them goes to the first section. `parameters`, the size of the
    head, was no result of an evaluation and is left out.

    `classes`: the names that evaluation.npz has. They were those of the last evaluation, so with
    several data sets it is not known whose they are.
    """
    results = {name: result for name, result in results.items() if name != "parameters"}
    specs = {r["fingerprint"]: r["data"] for r in results.values() if "data" in r}
    if results and not specs:
        specs = {"": "unknown"}
    names = tuple(classes) if len(specs) == 1 else ()
    sections = {
        fingerprint: Section(
            data=DataIdentity(spec=spec, fingerprint=fingerprint, classes=names), results={}
        )
        for fingerprint, spec in specs.items()
    }
    for name, old in results.items():
        value = results.get(name.removeprefix("difference/"), old)  # of the run itself
        lifted = _lifted(name, old, value)
        sections[value.get("fingerprint", next(iter(specs)))].results[lifted.key] = lifted
    return tuple(sections.values())


def _lifted(name: str, old: Settings, value: Settings) -> Result:
    measure, _, where = name.removeprefix("difference/").partition("/")
    protocol = value["protocol"]
    family, variant, metric = _parts(protocol, measure)
    fields = {key: old[key] for key in _FIELDS if key in old}
    settings = {key: old[key] for key in old if key not in (*_FIELDS, *_ABOUT)}
    if name.startswith("difference/"):
        fields["against"] = settings.pop("against")
    if protocol == "robustness":
        kind, _, strength = variant.partition("_")
        graded = kind in _GRADED
        settings["augmentation"] = kind if graded else variant
        if graded:
            settings["strength"] = float(strength)
    if isinstance(old.get("chance"), list):  # one a seed
        settings["chances"] = fields.pop("chance")
    return Result(
        protocol=protocol,
        measure=family,
        variant=variant,
        metric=metric,
        where=where,
        unit=_unit(protocol, family, variant, metric),
        version=fields.pop("version", 1),
        interval=tuple(fields.pop("interval")) if "interval" in fields else None,
        seeds=tuple(fields.pop("seeds", ())),
        settings=settings,
        **fields,
    )


def _parts(protocol: str, measure: str) -> tuple[str, str, str]:
    """Measure, variant and metric of a name such as `semi_10_top5`."""
    metric = ""
    if protocol.startswith(("linear", "semi", "finetune", "cluster")):
        metric = next((m for m in _METRICS if measure.endswith(f"_{m}")), "")
        measure = measure.removesuffix(f"_{metric}")
    for family in _FAMILIES.get(protocol, ()):
        if measure.startswith(f"{family}_"):
            return family, measure.removeprefix(f"{family}_"), metric
    return measure, "", metric


def _unit(protocol: str, measure: str, variant: str, metric: str) -> Unit:
    if measure in _UNITS:
        return _UNITS[measure]
    if metric in ("nmi", "ari") or (protocol == "transformations" and variant not in _TASKS):
        return "score"
    return "share" if protocol.startswith(_SHARES) else "score"
