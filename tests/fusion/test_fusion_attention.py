"""Measures of attention: planted truths, plain loops from the definitions, and the nulls."""

import math
import typing
from typing import Any

import numpy as np
import pytest
import torch
from narrow import present
from scipy.stats import kstest
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score
from torch import nn

from headwise.fusion.affinity import (
    auroc,
    count_classmates,
    masses,
    p_value,
    ranks,
    relabelled,
    spectral_clusters,
    spectral_nmi,
    sum_over_classmates,
)
from headwise.fusion.attention import (
    BlockMeasures,
    h_affinity,
    measure_attention,
    row_measures,
)
from headwise.heads import Head, HeadConfig, build_head, with_uniform_attention
from headwise.heads.config import Context
from headwise.heads.layers import batch_layout

CONTEXTS: tuple[Context, ...] = typing.get_args(Context)
MEASURED = ("gain", "same_mass", "other_mass", "twin_mass", "self_mass", "entropy")
LAYER = ("layer_gain", "layer_auroc", "layer_gain_h", "layer_gain_input")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_head(context: Context, seed: int = 0) -> Head:
    """Two blocks whose attention is far from even, in float64."""
    config = HeadConfig(
        name="transformer", depth=2, width=12, num_heads=3, output_size=4, context=context
    )
    head = build_head(config, 6, seed).double().eval().requires_grad_(False)
    for module in head.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= 3
    return head


def measured(head: Head, h, labels, permutations: int = 20, seed: int = 0) -> list[BlockMeasures]:
    return list(measure_attention(head, h, labels, permutations=permutations, seed=seed))


# Planted: a head whose logits are set by hand

N, CLASSES = 12, 3
SIZE = N // CLASSES
LABELS = torch.arange(N) % CLASSES
FUSION, WEAK, ABSENT, TWIN, CLASS_BUT_SELF = range(5)


def planted_logits(kind: int) -> torch.Tensor:
    """From row to row: 2N first views and twins."""
    y, image = LABELS.repeat(2), torch.arange(2 * N) % N
    same = (y[:, None] == y).double()
    itself = torch.eye(2 * N, dtype=torch.float64)
    twin = (image[:, None] == image).double() - itself
    return {
        FUSION: 60 * same,
        WEAK: 1.5 * same,
        ABSENT: 0 * same,
        TWIN: 20 * twin,
        CLASS_BUT_SELF: 60 * (same - itself - twin),
    }[kind]


def planted_head(kinds: tuple[int, ...], depth: int, context: Context = "joint") -> Head:
    """Attention heads with these logits, in every block: `h` is a row's one-hot code, the blocks
    add nothing to it, and queries and keys undo the LayerNorm."""
    e = 2 * N
    width = e * len(kinds)
    config = HeadConfig(
        name="transformer", depth=depth, width=width, num_heads=len(kinds), context=context
    )
    head = build_head(config, e, seed=0).double().eval().requires_grad_(False)
    layers: Any = head.layers
    first, *blocks, _ = layers
    first.weight.data = torch.eye(width, e, dtype=torch.float64)
    first.bias.data.zero_()
    # LN takes code 1 and 0 to `high` and `low`.
    mean = 1 / width
    deviation = math.sqrt(mean - mean**2 + blocks[0].norm_attention.eps)
    low, step = -mean / deviation, 1 / deviation
    undo = torch.eye(e, width, dtype=torch.float64) / step
    for block in blocks:
        for last in (block.merge, block.feed_forward[2]):
            last.weight.data.zero_()
            last.bias.data.zero_()
        weight = torch.zeros(3, len(kinds), e, width, dtype=torch.float64)
        bias = torch.zeros(3, len(kinds), e, dtype=torch.float64)
        bias[:2] = -low / step
        for i, kind in enumerate(kinds):
            logits = planted_logits(kind) * math.sqrt(e)
            weight[0, i], weight[1, i] = logits.T @ undo, undo
            bias[0, i] = logits.sum(0) * (-low / step)
        block.qkv.weight.data = weight.reshape(3 * width, width)
        block.qkv.bias.data = bias.reshape(-1)
    return head


CODES = torch.eye(2 * N, dtype=torch.float64)


def close(found, expected, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_planted_logits_are_those_of_the_head():
    kinds = (FUSION, WEAK, ABSENT, TWIN, CLASS_BUT_SELF)
    for weights in planted_head(kinds, depth=2).attention(CODES, views=2):
        for i, kind in enumerate(kinds):
            close(weights[0, i], planted_logits(kind).softmax(-1), atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2])
def test_planted_truth(depth):
    head = planted_head((FUSION, WEAK, ABSENT, TWIN, CLASS_BUT_SELF), depth)
    blocks = measured(head, CODES, LABELS)
    assert len(blocks) == depth
    most = (N - 1) / (SIZE - 1)  # 1 / chance
    for block in blocks:
        # Everything in the class, evenly: self, twin and 2 (SIZE - 1) rows of classmates.
        close(block.gain[FUSION], most)
        close(block.same_mass[FUSION], (SIZE - 1) / SIZE)
        close(block.other_mass[FUSION], (SIZE - 1) / SIZE)
        close(block.twin_mass[FUSION], 1 / (2 * SIZE))
        close(block.self_mass[FUSION], 1 / (2 * SIZE))
        close(block.entropy[FUSION], math.log(2 * SIZE))
        close(block.effective_number[FUSION], 2 * SIZE)
        close(block.auroc[FUSION], 1)
        # Classmates weigh e^1.5, others 1.
        own = math.exp(1.5)
        total = 2 * SIZE * own + 2 * (N - SIZE)
        same, other = 2 * (SIZE - 1) * own / total, (2 * (SIZE - 1) * own + 2 * (N - SIZE)) / total
        close(block.same_mass[WEAK], same)
        close(block.other_mass[WEAK], other)
        close(block.gain[WEAK], same / other * most)
        entropy = math.log(total) - 2 * SIZE * own / total * 1.5
        close(block.entropy[WEAK], entropy)
        close(block.effective_number[WEAK], math.exp(entropy))
        close(block.auroc[WEAK], 1)
        # No preference.
        close(block.gain[ABSENT], 1)
        close(block.twin_mass[ABSENT], 1 / (2 * N))
        close(block.self_mass[ABSENT], 1 / (2 * N))
        close(block.entropy[ABSENT], math.log(2 * N))
        close(block.effective_number[ABSENT], 2 * N)
        # Only the twin: what is left, 2N − 1 rows of e^-20, has no preference.
        rest = math.exp(20) + 2 * N - 1
        close(block.gain[TWIN], 1)
        close(block.twin_mass[TWIN], math.exp(20) / rest)
        close(block.self_mass[TWIN], 1 / rest)
        close(block.other_mass[TWIN], 2 * (N - 1) / rest)
        close(block.entropy[TWIN], 0)
        close(block.effective_number[TWIN], 1)
        # Total fusion that shuns self and twin.
        close(block.gain[CLASS_BUT_SELF], most)
        close(block.same_mass[CLASS_BUT_SELF], 1)
        close(block.twin_mass[CLASS_BUT_SELF] + block.self_mass[CLASS_BUT_SELF], 0)
        close(block.effective_number[CLASS_BUT_SELF], 2 * (SIZE - 1))
        # The layer: sums over attention heads.
        gain = block.same_mass.sum() / (block.other_mass.sum() / most)
        close(block.layer_gain, gain)
        assert block.layer_gain > block.layer_gain_permuted.max()


def test_planted_layers():
    (total,) = measured(planted_head((FUSION,), 1), CODES, LABELS, permutations=99)
    assert (total.layer_auroc, total.layer_nmi) == (1, pytest.approx(1))
    (absent,) = measured(planted_head((ABSENT,), 1), CODES, LABELS, permutations=99)
    assert absent.layer_gain == pytest.approx(1, abs=1e-12)
    (twin,) = measured(planted_head((TWIN,), 1), CODES, LABELS, permutations=99)
    assert twin.layer_gain == pytest.approx(1, abs=1e-6)
    for block, shows in ((total, True), (absent, False), (twin, False)):
        p = p_value(block.gain, block.gain_permuted).item()
        assert p == 0.01 if shows else p > 0.5
    p = p_value(torch.tensor(total.layer_nmi), total.layer_nmi_permuted)
    assert p == pytest.approx(0.01)


def test_uniform_attention_has_gain_one():
    head = with_uniform_attention(random_head("joint"))
    for block in measured(head, normal(20, 6), torch.arange(10) % 3):
        close(block.gain, 1, atol=1e-12)
        close(block.auroc, 0.5, atol=1e-12)
        close(block.layer_gain_permuted, 1, atol=1e-12)
        close(block.gain_h, 1, atol=1e-3)
        close(block.gain_input, 1, atol=1e-3)
        close(p_value(block.gain, block.gain_permuted), 1)


def test_self_sees_no_other_image():
    head = random_head("self")
    h, labels = normal(20, 6), torch.arange(10) % 3
    for block in measured(head, h, labels):
        close(block.gain, 1)
        close(block.gain_h, 1)
        close(block.gain_input, 1)
        close(block.other_mass, 0)
        close(block.self_mass, 1)
        close(block.effective_number, 1)
        assert block.layer_gain == 1
        assert block.auroc.isnan().all()
        assert math.isnan(block.layer_nmi)
        assert p_value(torch.tensor(block.layer_nmi), block.layer_nmi_permuted).isnan()
    assert all(math.isnan(value) for value in h_affinity(h, "self", 2, labels, seed=0))


def test_what_is_undefined_is_nan():
    # Every image a class of its own: no classmates to prefer.
    for block in measured(random_head("joint"), normal(8, 6), torch.arange(4)):
        assert block.gain.isnan().all()
        assert block.auroc.isnan().all()
        assert (block.other_mass > 0).all()
    assert not list(
        measure_attention(
            build_head(HeadConfig(), 6), torch.zeros(8, 6), torch.arange(4), permutations=1, seed=0
        )
    )


# Plain loops, straight from the definitions


def chance(a: list[list[float]], v: list[list[bool]]) -> list[list[float]]:
    """r_i q_j between other images in view, with the row and column sums of `a`."""
    n = len(a)
    seen = [[v[i][j] and i != j for j in range(n)] for i in range(n)]
    rows = [sum(a[i][j] for j in range(n) if j != i) for i in range(n)]
    columns = [sum(a[i][j] for i in range(n) if j != i) for j in range(n)]
    r, q = [1.0] * n, [1.0] * n
    for _ in range(40):
        for j in range(n):
            total = sum(r[i] for i in range(n) if seen[i][j])
            q[j] = columns[j] / total if total else 0.0
        for i in range(n):
            total = sum(q[j] for j in range(n) if seen[i][j])
            r[i] = rows[i] / total if total else 0.0
    return [[r[i] * q[j] * seen[i][j] for j in range(n)] for i in range(n)]


def loops(weights: torch.Tensor, layout, n: int, labels: torch.Tensor) -> dict[str, list[float]]:
    """Of weights `[s heads t t]`: each measure, by attention head."""
    s, heads, t, _ = weights.shape
    m, y = s * t, labels.tolist()
    full = torch.zeros(heads, m, m, dtype=torch.float64)
    sees = torch.zeros(m, m, dtype=torch.bool)
    for k in range(s):
        rows = slice(k * t, k * t + t)
        full[:, rows, rows] = weights[k]
        sees[rows, rows] = True if layout.mask is None else layout.mask
    found: dict[str, list[float]] = {name: [] for name in (*MEASURED, "effective_number", "auroc")}
    for head in range(heads):
        w = full[head].tolist()
        a = [[0.0] * n for _ in range(n)]
        v = [[False] * n for _ in range(n)]
        twin = own = entropy = number = 0.0
        for i in range(m):
            h = -sum(x * math.log(x) for x in w[i] if x > 0)
            entropy, number, own = entropy + h / m, number + math.exp(h) / m, own + w[i][i] / m
            for j in range(m):
                a[i % n][j % n] += w[i][j] / (m // n)
                v[i % n][j % n] |= bool(sees[i, j])
                twin += w[i][j] / m if i != j and i % n == j % n else 0
        same = other = expected = 0.0
        by_chance = chance(a, v)
        areas = []
        for i in range(n):
            seen = [j for j in range(n) if j != i and v[i][j]]
            mates = [j for j in seen if y[j] == y[i]]
            strangers = [j for j in seen if y[j] != y[i]]
            o = sum(a[i][j] for j in range(n) if j != i)
            other, same = other + o, same + sum(a[i][j] for j in mates)
            expected += sum(by_chance[i][j] for j in mates)
            if mates and strangers:
                above = sum(
                    (a[i][j] > a[i][k]) + (a[i][j] == a[i][k]) / 2 for j in mates for k in strangers
                )
                areas.append(above / len(mates) / len(strangers))
        gain = same / expected if other >= 1e-6 * n else 1.0
        values = (gain, same / n, other / n, twin, own, entropy, number)
        area = float(np.mean(areas)) if areas else math.nan
        for name, value in zip(found, (*values, area), strict=True):
            found[name].append(value)
    return found


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("context", CONTEXTS)
def test_measures_are_those_of_plain_loops(context, views):
    n = 8
    head, h = random_head(context), normal(views * n, 6)
    labels = torch.tensor([3, 0, 3, 1, 0, 1, 1, 3])
    layout = batch_layout(context, views * n, views, h.device)
    blocks = measure_attention(head, h, labels, views, permutations=3, seed=0)
    for weights, block in zip(head.attention(h, views), blocks, strict=True):
        for name, expected in loops(weights, layout, n, labels).items():
            close(getattr(block, name), expected, atol=1e-10)
        # The layer's are those of the attention heads' mean.
        layer = loops(weights.mean(1, keepdim=True), layout, n, labels)
        close(block.layer_gain, layer["gain"][0], atol=1e-10)
        close(block.layer_auroc, layer["auroc"][0], atol=1e-10)
        for p, y in enumerate(relabelled(labels, 3, seed=0)[1:]):
            null = loops(weights, layout, n, y)
            close(block.gain_permuted[:, p], null["gain"], atol=1e-10)
            layer = loops(weights.mean(1, keepdim=True), layout, n, y)
            close(block.layer_gain_permuted[p], layer["gain"][0], atol=1e-10)
            close(block.layer_auroc_permuted[p], layer["auroc"][0], atol=1e-10)


def test_auroc_counts_ties_half():
    labels = torch.tensor([[0, 0, 1, 1, 0, 1, 0]])
    affinity = torch.randint(3, (2, 7, 7), generator=torch.Generator().manual_seed(0)).double()
    visible = ~torch.eye(7, dtype=torch.bool)
    found = auroc(ranks(affinity, visible), count_classmates(labels, visible))
    y = labels[0].numpy()
    for matrix, value in zip(affinity.numpy(), found[:, 0], strict=True):
        others = [np.arange(7) != i for i in range(7)]
        areas = [roc_auc_score(y[o] == y[i], matrix[i][o]) for i, o in enumerate(others)]
        close(value, np.mean(areas), atol=1e-12)


def test_sums_in_blocks_are_those_of_the_whole(monkeypatch):
    values, labels = normal(2, 9, 9), torch.arange(9).remainder(3).expand(4, 9).contiguous()
    whole = sum_over_classmates(values, labels)
    monkeypatch.setattr("headwise.fusion.affinity._BLOCK_ELEMENTS", 2 * 4 * 9)
    close(sum_over_classmates(values, labels), whole, atol=1e-12)


@pytest.mark.parametrize("context", CONTEXTS)
def test_permuting_the_images_changes_nothing(context):
    n = 8
    if context == "halves":
        # Its images may be permuted within their halves alone.
        order = torch.tensor([2, 0, 3, 1, 7, 6, 4, 5])
    else:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    head, h, labels = random_head(context), normal(2 * n, 6), torch.arange(n) % 3
    rows = torch.cat([order, order + n])
    names = (*MEASURED, "effective_number", "auroc", "gain_h", "gain_input", *LAYER)
    for one, other in zip(
        measured(head, h, labels), measured(head, h[rows], labels[order]), strict=True
    ):
        for name in names:
            close(getattr(one, name), getattr(other, name), atol=1e-12)


def test_the_permutations_are_of_the_seed():
    labels = torch.arange(9) % 3 + 5
    one, same, other = (relabelled(labels, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one[0], labels - 5)
    assert torch.equal(one.sort(1).values, (labels - 5).sort().values.expand(5, 9))


# Spectral clusters


def test_planted_blocks_are_found_and_the_null_permutes_labels_alone():
    y = torch.arange(30) % 3
    affinity = (y[:, None] == y).double() + 0.05 * normal(30, 30).abs()
    labels = relabelled(y, 50, seed=0)
    found = spectral_nmi(affinity, labels, seed=0)
    assert found[0] == pytest.approx(1)
    # Clusters that are the classes: the null is the NMI of the labels with themselves permuted.
    expected = [normalized_mutual_info_score(y, labels[p]) for p in range(51)]
    close(found, expected, atol=1e-12)
    assert p_value(found[0], found[1:]) == pytest.approx(1 / 51)


def test_graphs_without_edges_and_with_lone_images():
    y = relabelled(torch.arange(12) % 2, 2, seed=0)
    assert spectral_nmi(torch.zeros(12, 12), y, seed=0).isnan().all()
    assert spectral_nmi(torch.ones(12, 12), torch.zeros_like(y), seed=0).isnan().all()
    affinity = (y[0][:, None] == y[0]).double()
    affinity[0] = affinity[:, 0] = 0
    found = present(spectral_clusters(affinity, 2, seed=0))
    assert normalized_mutual_info_score(y[0][1:], found[1:]) == pytest.approx(1)


# Nulls


def p_values(planted: float, trials: int = 200, permutations: int = 99) -> dict[str, torch.Tensor]:
    """Of gain and AUROC of random weights, classmates heavier by `planted`."""
    n, found = 12, {"gain": [], "auroc": []}
    visible = ~torch.eye(n, dtype=torch.bool)
    logits = normal(trials, n, n)
    for trial in range(trials):
        y = torch.randperm(n, generator=torch.Generator().manual_seed(trial)) % 3
        same = (y[:, None] == y).double()
        affinity = (logits[trial] + planted * same).exp()[None] * visible
        classes = count_classmates(relabelled(y, permutations, seed=trial), visible)
        values = {
            "gain": masses(affinity, classes).gain[0],
            "auroc": auroc(ranks(affinity, visible), classes)[0],
        }
        for name, value in values.items():
            found[name].append(p_value(value[0], value[1:]))
    return {name: torch.stack(values) for name, values in found.items()}


def test_p_values_are_uniform_where_labels_mean_nothing_and_tiny_where_planted():
    for name, p in p_values(planted=0.0).items():
        # p takes the values 0.01, 0.02, … 1.
        assert kstest(p - 0.005, "uniform").pvalue > 1e-3, name
    for name, p in p_values(planted=3.0, trials=50).items():
        assert p.max() <= 0.02, name


# h itself


def test_h_as_affinity():
    n = 30
    y = torch.arange(n) % 3
    h = normal(3, 10, seed=1)[y].repeat(2, 1) + 0.1 * normal(2 * n, 10)
    assert h_affinity(h, "joint", 2, y, seed=0) == (1.0, pytest.approx(1))
    h = normal(2 * n, 10)
    found = h_affinity(h, "per-view", 2, y, seed=0)
    unit = nn.functional.normalize(h, dim=1)
    cosines = (unit[:n] @ unit[:n].T + unit[n:] @ unit[n:].T).numpy()
    others = [np.arange(n) != i for i in range(n)]
    areas = [roc_auc_score((y == y[i])[o], cosines[i][o]) for i, o in enumerate(others)]
    assert found.auroc_h == pytest.approx(np.mean(areas), abs=1e-12)


def test_rows_of_single_precision_are_measured_as_well():
    head, h, labels = random_head("joint"), normal(40, 6), torch.arange(20) % 4
    exact = measured(head, h, labels)
    single = measured(head.float(), h.float(), labels)
    for one, other in zip(single, exact, strict=True):
        for name in (*MEASURED, "auroc", "gain_h", "gain_input", "layer_gain", "layer_auroc"):
            close(getattr(one, name), getattr(other, name), atol=1e-4)


def test_row_measures_of_weights_that_sum_to_less_than_one():
    # ReLU attention: a row without a positive cosine takes nothing.
    weights = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    weights[0, 0, 0, 2], weights[0, 0, 1, 1] = 1.0, 1.0
    found = row_measures(weights, 2)
    assert (found.twin_mass.item(), found.self_mass.item(), found.entropy.item()) == (0.25, 0.25, 0)
