"""Clusters of the test features, found without labels and scored by them."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.special import entr
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from headwise import rng
from headwise.errors import UserError
from headwise.evaluation.probes.labels import check_classes
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.knn import nearest_rows
from headwise.features.extract import Features, finite
from headwise.runs.results import RESAMPLES, Settings, Value, mean_value

CLUSTER = Description(
    title="Clusters without labels",
    definition=(
        "The test features are clustered without labels. Accuracy matches every cluster to one "
        "class. NMI and ARI compare clusters and classes; 0 is chance and 1 is perfect."
    ),
    labels={"cluster": "k-means", "cluster_spectral": "spectral clustering"},
    section="taps",
    source="spectral clustering: Ng, Jordan and Weiss, 2001",
)

SPECTRAL_ROWS = 3000
"""The spectral protocol decomposes a dense matrix of so many rows at most."""

_NEIGHBOURS = 10
_RESTARTS = 10
_SHUFFLES = 20


def cluster(
    tap: str, train: Features, test: Features, *, seed: int, clusters: int | None = None
) -> Iterator[Value]:
    """k-means on the L2-normalised test features, and spectral clustering where there are at most
    `SPECTRAL_ROWS`: accuracy under the best assignment of clusters to classes, NMI (normalised by
    the arithmetic mean) and ARI. The training features have no say.

    Normalised, because neighbourhood under NT-Xent is an angle. `clusters` None: one a class. With
    more, those left over count as wrong. The chance level is the mean under shuffled labels.

    Raises `UserError` for fewer than two classes or clusters, more clusters than images, and
    features that are not finite.
    """
    assert test.labels is not None, "labels were checked"
    classes, labels = test.labels.unique(return_inverse=True)
    clusters = len(classes) if clusters is None else clusters
    check_classes("cluster", labels)
    if not 2 <= clusters <= len(labels):
        raise UserError(
            f"cluster's clusters must lie in 2..{len(labels)}, the number of test images; "
            f"got {clusters}"
        )
    x = F.normalize(finite("cluster's", test.vectors).float(), dim=1)
    y = labels.cpu().numpy()
    assigned = k_means(x.cpu().numpy(), clusters, seed)
    yield from _values("cluster", tap, assigned, y, clusters=clusters, seed=seed)
    if len(x) <= SPECTRAL_ROWS:
        assigned = k_means(spectral_axes(x, clusters), clusters, seed)
        yield from _values("cluster_spectral", tap, assigned, y, clusters=clusters, seed=seed)


def spectral_axes(x: Float[Tensor, "n p"], count: int) -> np.ndarray:
    """The `graph_axes` of the graph of 10 nearest neighbours, `[n, count]`."""
    n = len(x)
    k = min(_NEIGHBOURS, n - 1)
    index = torch.cat([index for _, index in nearest_rows(x, x, k, leave_one_out=True)])
    graph = np.zeros((n, n))
    graph[np.arange(n)[:, None], index.cpu().numpy()] = 0.5
    return graph_axes(graph + graph.T, count)


def graph_axes(graph: Float[np.ndarray, "n n"], count: int) -> Float[np.ndarray, "n count"]:
    """The `count` leading eigenvectors of a symmetric graph, normalised by its degrees, rows scaled
    to unit length (Ng, Jordan and Weiss, 2001).

    Decomposed densely: the leading eigenvalue of a graph in several parts is a multiple one, which
    iterative methods miss.
    """
    n, degree = len(graph), graph.sum(0)
    scale = 1 / np.sqrt(np.where(degree > 0, degree, 1))
    graph = graph * (scale[:, None] * scale)
    axes = eigh(graph, subset_by_index=[n - count, n - 1], overwrite_a=True)[1]
    return axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)


def contingency(
    clusters: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], shape: tuple[int, int]
) -> Int[np.ndarray, "k c"]:
    """The number of images by cluster and class."""
    return np.bincount(clusters * shape[1] + labels, minlength=shape[0] * shape[1]).reshape(shape)


def assign(table: Int[np.ndarray, "k c"]) -> Int[np.ndarray, " k"]:
    """The class of each cluster, each class once at most, so that most images are right; −1 for a
    cluster that none is left for."""
    classes = np.full(len(table), -1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    classes[rows] = columns
    return classes


# NMI and ARI are scikit-learn's (a test compares them), computed from the contingency table: an
# interval needs 1,000 of each, and scikit-learn, which starts from the labels of all images, took
# 300 to 1,000 times as long.


def nmi(table: Int[np.ndarray, "k c"]) -> float:
    """Mutual information of clusters and classes over the mean of their entropies: 0 to 1."""
    shares = table / table.sum()
    clusters, classes = entr(shares.sum(1)).sum(), entr(shares.sum(0)).sum()
    mutual = clusters + classes - entr(shares).sum()
    return float(max(mutual, 0.0) / max((clusters + classes) / 2, 1e-12))


def ari(table: Int[np.ndarray, "k c"]) -> float:
    """Adjusted Rand index, of pairs of images: 1 where clusters are classes, 0 by chance."""
    together, clusters, classes, all_pairs = (
        float((counts * (counts - 1.0)).sum())
        for counts in (table, table.sum(1), table.sum(0), table.sum())
    )
    if together == clusters == classes:
        return 1.0
    expected = clusters * classes / all_pairs
    return (together - expected) / ((clusters + classes) / 2 - expected)


def _accuracy(table: np.ndarray) -> float:
    classes = assign(table)
    return float(table[classes >= 0, classes[classes >= 0]].sum() / table.sum())


def _values(
    measure: str, tap: str, assigned: np.ndarray, labels: np.ndarray, *, clusters: int, seed: int
) -> Iterator[Value]:
    """Accuracy, NMI and ARI of images `assigned` to clusters."""
    shape = (clusters, int(labels.max()) + 1)
    table = contingency(assigned, labels, shape)
    draws = np.random.default_rng(rng.seed_at(seed, "cluster", "shuffle"))
    shuffled = [contingency(assigned, draws.permutation(labels), shape) for _ in range(_SHUFFLES)]

    def by_chance(score: Callable[[np.ndarray], float]) -> float:
        return float(np.mean([score(counts) for counts in shuffled]))

    predicted = assign(table)[assigned]
    right = torch.from_numpy(predicted == labels)
    settings: Settings = {"clusters": clusters}
    chance = by_chance(_accuracy)
    yield mean_value(
        "cluster",
        measure,
        tap,
        right,
        chance=chance,
        settings=settings,
        arrays={"predictions": predicted.astype(np.int32)},
    )
    for metric, score in ("nmi", nmi), ("ari", ari):
        yield Value(
            protocol="cluster",
            measure=measure,
            metric=metric,
            where=tap,
            unit="score",
            value=score(table),
            n=len(labels),
            interval=_interval(score, table, seed),
            chance=by_chance(score),
            settings=settings,
        )


def _interval(
    score: Callable[[np.ndarray], float], table: np.ndarray, seed: int
) -> tuple[float, float]:
    """95 %, normal, with the standard deviation over resampled images, each in its cluster. Not the
    resamples' quantiles: near chance their NMI lies above that of the images."""
    draws = np.random.default_rng(rng.seed_at(seed, "cluster", "bootstrap"))
    shares = table.ravel() / table.sum()
    scores = [
        score(draws.multinomial(table.sum(), shares).reshape(table.shape)) for _ in range(RESAMPLES)
    ]
    value, spread = score(table), 1.96 * float(np.std(scores))
    return value - spread, value + spread


def k_means(
    x: np.ndarray, clusters: int, seed: int, place: tuple[str, ...] = ("cluster",)
) -> np.ndarray:
    """The cluster of each row: k-means++, the best of several starts, drawn at this place."""
    state = rng.seed_at(seed, *place) % 2**32
    means = KMeans(clusters, n_init=_RESTARTS, random_state=state)
    with warnings.catch_warnings():
        # Of collapsed features: fewer distinct rows than clusters. The score says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(means.fit(x).labels_)  # type: ignore[arg-type]
