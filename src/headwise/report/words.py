"""Values in words."""

from collections.abc import Mapping, Sequence


def word(value: object) -> str:
    """A setting as text."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        case dict():
            return ", ".join(f"{key} {word(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(map(word, value))
        case None:
            return "unknown"
        case _:
            return str(value)


def settings_in_words(settings: Mapping[str, object]) -> str:
    """`k = 10, temperature = 0.1`, without nested ones: results.json has them."""
    plain = {key: item for key, item in settings.items() if not isinstance(item, dict)}
    return ", ".join(f"{key} = {word(item)}" for key, item in plain.items())


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def sentence_case(words: str) -> str:
    """With a capital at the beginning, apart from words such as kNN."""
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]


def percent(value: float, *, signed: bool = False) -> str:
    """0.6215 as "62.2"; the caller writes the sign of per cent or the word. What rounds to zero
    has no sign."""
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def points(value: float, *, signed: bool = False) -> str:
    """A difference of two shares: 0.012 as `1.2 points`."""
    return f"{percent(value, signed=signed)} points"


def interval_text(low: float, high: float, *, signed: bool = False) -> str:
    """`1.2 to 3.4`, in points."""
    return f"{percent(low, signed=signed)} to {percent(high, signed=signed)}"


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
