"""Numbers of an evaluation as text."""

from headwise.evaluation.config import describe
from headwise.evaluation.protocols.description import Description
from headwise.fusion.description import FUSION
from headwise.report.tables.table import Cell
from headwise.runs.results import Result, Unit


def number_text(unit: Unit | str, value: float) -> str:
    """Shares in percent, without the sign."""
    if unit == "share":
        text = f"{100 * value:z.1f}"
    elif unit == "rank":
        text = f"{value:z,.1f}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:z.3f}"
    return text.replace("-", "−")


def value_text(result: Result) -> str:
    """A difference has its sign, unless it rounds to 0."""
    text = number_text(result.unit, result.value)
    signed = result.against is not None and result.value > 0 and text.strip("0.")
    return f"+{text}" if signed else text


def cell(result: Result | None) -> Cell:
    """The value ± half the width of its 95 % interval, then σ over seeds; what is known of it."""
    if result is None:
        return Cell()
    parts = []
    if result.interval is not None:
        low, high = result.interval
        parts.append(number_text(result.unit, (high - low) / 2))
    if result.std is not None:
        parts.append(f"σ {number_text(result.unit, result.std)}")
    return Cell(text=value_text(result), spread=", ".join(parts))


def interval_of(result: Result) -> tuple[float, float]:
    """95 %; no wider than the value if none is known."""
    return result.interval or (result.value, result.value)


def description_of(result: Result) -> Description:
    """What the protocol says of itself."""
    return FUSION if result.protocol == "fusion" else describe(result.protocol)


def label(result: Result) -> str:
    """The measure in words."""
    return description_of(result).label(result)


def p_text(value: float | None) -> str:
    """Empty if there was no test."""
    return "" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def count_text(n: int | None) -> str:
    """Empty if it is not known."""
    return "" if n is None else f"{n:,}"
