import pytest
import torch

from headwise.errors import UserError
from headwise.explore.selection import select


def planted(sizes: list[int], p: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of these sizes around axes, and the cluster of each row."""
    cluster = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    noise = 0.1 * torch.randn(len(cluster), p, generator=torch.Generator().manual_seed(0))
    return torch.eye(p)[cluster] + noise, cluster


@pytest.mark.parametrize("how", ["typical", "diverse"])
def test_each_planted_cluster_gets_an_image(how):
    h, cluster = planted([40, 30, 20, 10, 5])
    chosen = select(h, 5, how)
    assert {*cluster[[one.row for one in chosen]].tolist()} == {0, 1, 2, 3, 4}
    if how == "typical":
        assert [int(cluster[one.row]) for one in chosen] == [0, 1, 2, 3, 4], "the largest first"
        centre = torch.nn.functional.normalize(h[:40]).mean(0)
        close = (torch.nn.functional.normalize(h[:40]) @ centre).argsort(descending=True)
        assert chosen[0].row in close[:10].tolist()


@pytest.mark.parametrize("how", ["typical", "diverse"])
def test_clusters_with_labels_come_last(how):
    h, cluster = planted([30, 30, 30, 30])
    labels = torch.full((120,), -1)
    labels[0], labels[30] = 0, 1
    chosen = [one.row for one in select(h, 2, how, labels=labels)]
    assert {*cluster[chosen].tolist()} == {2, 3}
    everything = [one.row for one in select(h, 118, how, labels=labels)]
    assert sorted(everything) == [*range(1, 30), *range(31, 120)]


def test_outliers_and_uncertain_images():
    h, _ = planted([40, 40])
    h[7] = -torch.ones(12)
    assert select(h, 1, "outlier")[0].row == 7
    labels = torch.full((80,), -1)
    labels[:7], labels[40:47] = 0, 1
    h[60] = torch.eye(12)[0] + torch.eye(12)[1]
    h[7] = torch.eye(12)[0]
    assert select(h, 1, "uncertain", labels=labels)[0].row == 60
    assert all(one.reason for how in ("random", "outlier") for one in select(h, 3, how))
    with pytest.raises(UserError, match="labels of at least two classes"):
        select(h, 1, "uncertain")


def test_a_choice_is_that_of_its_seed():
    h, _ = planted([20, 20])
    assert select(h, 9, "random", seed=1) == select(h, 9, "random", seed=1)
    assert select(h, 9, "random", seed=1) != select(h, 9, "random", seed=2)
    with pytest.raises(UserError, match=r"--n must lie in 1\.\.40.*got 41"):
        select(h, 41, "random")
