"""Whether pretraining was worth it, in one sentence."""

from collections.abc import Sequence

from headwise.report.words import listed


def worth(where: str, above: Sequence[str], others: Sequence[str]) -> str:
    """Against everything that one has without pretraining: what h is shown to be `above`, and the
    `others`. `where`: `for this network`, `under mlp`."""
    question = "Was pretraining on these images worth it"
    if not others:
        return f"{question} {where}? Yes: it is above {listed(list(above))}."
    beside = f"it is above {listed(list(above))}, but " if above else "it is "
    return f"{question} {where}? That is not shown: {beside}not above {listed(list(others), 'or')}."
