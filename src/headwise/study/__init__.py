"""Studies: a grid of settings and seeds, run cell by cell, and what it says about claims.

The public names are imported when first used, so that `import headwise.study` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwise.report.reading.study import Figure
    from headwise.study.design import Axis, Claim, Contrast, Group, Study, axis
    from headwise.study.presets import PRESETS, preset
    from headwise.study.run import run_study

_HOMES = {
    "PRESETS": "study.presets",
    "Axis": "study.design",
    "Claim": "study.design",
    "Contrast": "study.design",
    "Figure": "report.reading.study",
    "Group": "study.design",
    "Study": "study.design",
    "axis": "study.design",
    "preset": "study.presets",
    "run_study": "study.run",
}

__all__ = [  # noqa: RUF022, the order of use
    "preset",
    "PRESETS",
    "run_study",
    "Study",
    "Axis",
    "axis",
    "Claim",
    "Contrast",
    "Group",
    "Figure",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headwise.study' has no attribute {name!r}")
    return getattr(import_module(f"headwise.{_HOMES[name]}"), name)
