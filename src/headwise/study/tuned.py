"""What a search has found: its trials from the best on, whether the criterion agrees with k-NN, and
the commands that come next."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from headwise import rng
from headwise.config import from_dict, to_dict
from headwise.files import read_object, write_json, write_text
from headwise.report.tables.forms import written
from headwise.report.tables.table import Cell, Column, Table, TableRow
from headwise.report.words import counted
from headwise.study.propose import Trial, read_trials
from headwise.study.search import SEARCH_FILE, Criterion, Search

TUNING_FILE = "tuning.json"
CRITERIA: Mapping[Criterion, str] = {
    "rank": "the effective rank of h (RankMe, arXiv 2210.02885) on training images; no labels. "
    "Noise raises it too",
    "twins": "how often the second view of a training image is the nearest to its first by h; no "
    "labels. What colour and edges tell apart raises it too",
    "knn": "the accuracy of 10 nearest neighbours by h on validation images, which uses labels",
}
_FEWEST = 5
"""Trials before a correlation is given."""
_SHUFFLES = 9999
_COMPARED = 3


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Spearman's rank correlation of a criterion and k-NN, over finished trials."""

    criterion: Criterion
    n: int
    rho: float | None = None
    """None with fewer than five trials, and where one of the two never changes."""
    interval: tuple[float, float] | None = None
    """95 %, by Fisher's transformation (Bonett and Wright 2000)."""
    p_value: float | None = None
    """Two-sided, over shuffled trials."""


def agreement(criterion: Criterion, values: Sequence[float], knn: Sequence[float]) -> Agreement:
    """Whether a criterion orders trials as k-NN does."""
    n = len(values)
    if n < _FEWEST or min(len({*values}), len({*knn})) < 2:
        return Agreement(criterion=criterion, n=n)
    one, other = (np.asarray(stats.rankdata(x)) - (n + 1) / 2 for x in (values, knn))
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    rho = float(one @ other) / scale
    draws = np.random.default_rng(rng.seed_at(0, "shuffled trials"))
    shuffled = draws.permuted(np.tile(other, (_SHUFFLES, 1)), axis=1) @ one / scale
    p = (1 + int((np.abs(shuffled) >= abs(rho) - 1e-9).sum())) / (1 + _SHUFFLES)
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = math.atanh(min(max(rho, -0.999999), 0.999999))
    interval = (math.tanh(centre - half), math.tanh(centre + half))
    return Agreement(criterion=criterion, n=n, rho=rho, interval=interval, p_value=p)


def agreement_words(found: Agreement) -> str:
    """In a sentence."""
    who = f"{found.criterion} and k-NN over {counted(found.n, 'finished trial')}"
    if found.rho is None or found.interval is None or found.p_value is None:
        return f"{who}: too few, or too alike, to tell whether they agree."
    low, high = found.interval
    numbers = (
        f"rank correlation {found.rho:+.2f} (95 % interval {low:+.2f} to {high:+.2f}, "
        f"p = {found.p_value:.3f})"
    )
    if found.p_value > 0.05:
        verdict = "these trials cannot tell whether they agree"
    elif found.rho > 0:
        verdict = "the criterion orders these trials much as k-NN does, or better than by chance"
    else:
        verdict = "the criterion prefers what k-NN finds worse; do not choose by it on these images"
    return f"{who}: {numbers}; {verdict}."


def best_first(trials: Sequence[Trial], criterion: Criterion) -> list[Trial]:
    """Finished ones by the criterion, then those that were stopped, then the others."""
    order = ("finished", "pruned", "open", "failed")
    return sorted(
        trials, key=lambda t: (order.index(t.outcome), -t.last.get(criterion, -math.inf), t.number)
    )


def write_tuned(folder: Path) -> None:
    """Write tuning.json and tuning.md from the trials so far."""
    search, trials = _read(folder)
    agreements = [to_dict(one) for one in _agreements(search, trials)]
    chosen = best_first(trials, search.criterion)
    write_json(
        folder / TUNING_FILE,
        {
            "criterion": search.criterion,
            "trials": [to_dict(trial) for trial in chosen],
            "agreement": agreements,
            "next": _commands(search, chosen),
        },
    )
    table = _table(search, chosen)
    titles = [table.corner, *(column.title for column in table.columns)]
    rows = ([row.label, *(cell.text for cell in row.cells)] for row in table.rows)
    text = "".join(written(titles, rows, "markdown"))
    write_text(folder / "tuning.md", "\n\n".join([text, *_words(search, trials, chosen)]) + "\n")


def tuned_text(folder: Path) -> str:
    """What was found, for the terminal."""
    search, trials = _read(folder)
    chosen = best_first(trials, search.criterion)
    return "\n\n".join([_table(search, chosen).text(), *_words(search, trials, chosen)])


def _read(folder: Path) -> tuple[Search, list[Trial]]:
    path = folder / SEARCH_FILE
    return from_dict(Search, read_object(path), str(path)), read_trials(folder)


def _agreements(search: Search, trials: Sequence[Trial]) -> list[Agreement]:
    done = [one.last for one in trials if one.outcome == "finished" and "knn" in one.last]
    knn = [values["knn"] for values in done]
    free: tuple[Criterion, ...] = ("rank", "twins")
    return [agreement(name, [v[name] for v in done], knn) for name in free if search.labelled]


def _table(search: Search, trials: Sequence[Trial]) -> Table:
    names = ["rank", "twins", *(["knn"] if search.labelled else [])]
    columns = ["outcome", *names, *(one.path for one in search.settings)]
    return Table(
        corner="#",
        columns=[Column(title=name, short=name.rpartition(".")[2]) for name in columns],
        rows=[
            TableRow(
                label=str(trial.number),
                cells=[
                    Cell(text=_outcome(trial)),
                    *(Cell(text=_number(name, trial.last.get(name))) for name in names),
                    *(Cell(text=trial.settings[one.path]) for one in search.settings),
                ],
            )
            for trial in trials
        ],
    )


def _outcome(trial: Trial) -> str:
    return f"stopped at {trial.epochs}" if trial.outcome == "pruned" else trial.outcome


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if name == "rank" else f"{value:.1%}"


def _words(search: Search, trials: Sequence[Trial], chosen: Sequence[Trial]) -> list[str]:
    said = [f"Criterion: {search.criterion}, {CRITERIA[search.criterion]}."]
    if search.labelled:
        said += [agreement_words(one) for one in _agreements(search, trials)]
    else:
        said += [
            "Without labels nothing here shows whether the criterion is right on these images."
        ]
    said += [f"Trial {t.number} failed: {t.said}" for t in trials if t.outcome == "failed"]
    commands = _commands(search, chosen)
    if commands:
        said += [f"Settings of the best trial:\n  {commands[0]}"]
        said += [
            "Each trial is one run with one seed, which describes its settings and does not rank "
            "them."
        ]
    if len(commands) > 1:
        said += [f"The best few against those to begin with, over five seeds:\n  {commands[1]}"]
    return said


def _commands(search: Search, chosen: Sequence[Trial]) -> list[str]:
    """`headwise pretrain` with the best settings; with labels and another trial beside it,
    `headwise compare` of the best few and the first."""
    done = [trial for trial in chosen if trial.outcome == "finished"]
    if not done:
        return []
    words = ["headwise", "pretrain", *search.words]
    for path, text in done[0].settings.items():
        words += [f"--{path.replace('_', '-')}", *text.split()]
    commands = [shlex.join([*words, "--out", "runs/tuned"])]
    if search.labelled and len(done) > 1:
        few = done[:_COMPARED] + [one for one in done[_COMPARED:] if one.number == 0]
        arms = dict.fromkeys(_arm(search, trial.settings) for trial in few)
        start = ["headwise", "compare", *search.words]
        commands.append(shlex.join([*start, "--arms", *arms, "--out", "runs/tuned-compared"]))
    return commands


def _arm(search: Search, settings: Mapping[str, str]) -> str:
    """As --arms takes it."""
    own = {path: text for path, text in settings.items() if path != "head.name"}
    told = ",".join(f"{path}={text}" for path, text in own.items())
    head = settings.get("head.name", search.base.head.name)
    return f"{head}:{told}" if told else head
