"""W ranks on shards are one process on the whole: the same loss, gradient and weights."""

import os
import socket
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from resolved import resolved_config
from torch import nn

from headwise import heads
from headwise.augment.batches import batch_index, local_rows
from headwise.data.images import resident_images
from headwise.encoders.build import EncoderConfig
from headwise.heads import Context, HeadConfig, build_head
from headwise.heads.config import Norm
from headwise.losses import orthonormal_directions
from headwise.model.checkpoint import TrainState
from headwise.model.contrastive import ContrastiveModel, gather_views
from headwise.model.objective import LABELLED, ClassTargets, Objective
from headwise.pretraining.loop import train_step
from headwise.runtime import distributed

N, P = 12, 6
WORLDS = (4, 2)


def transformer(context: Context, norm: Norm) -> HeadConfig:
    return HeadConfig(
        name="transformer",
        depth=2,
        width=8,
        num_heads=2,
        output_size=5,
        context=context,
        norm=norm,
    )


HEADS = {
    "identity": HeadConfig(name="identity"),
    "identity-batch-norm": HeadConfig(name="identity", batch_norm=True),
    "linear": HeadConfig(name="linear", output_size=5),
    "linear-without-batch-norm": HeadConfig(name="linear", output_size=5, batch_norm=False),
    "mlp": HeadConfig(name="mlp", width=8, output_size=5),
    "mlp-without-batch-norm": HeadConfig(name="mlp", width=32, output_size=5, batch_norm=False),
    "ffn": HeadConfig(name="ffn", depth=2, width=8, output_size=5),
    "joint": transformer("joint", "post"),
    "joint-pre": transformer("joint", "pre"),
    "per-view": transformer("per-view", "post"),
    "self": transformer("self", "pre"),
    "twin-masked": transformer("twin-masked", "post"),
    "halves": transformer("halves", "pre"),
    "batch-norm": transformer("joint", "batch"),
    "ffn-matched": HeadConfig(name="ffn-matched", depth=2, width=8, output_size=5),
    "transfusion": HeadConfig(name="transfusion", depth=2, width=32, output_size=5),
    "batchformer": HeadConfig(name="batchformer", width=8, output_size=5, num_heads=2),
    "class directions": HeadConfig(name="mlp", width=8, output_size=5),
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "transfusion": {"objective": "affinity"},
    "nt-xent of dot products": {"normalised": False, "temperature": 2.0},
    "semi-hard nt-logistic": {"objective": "nt-logistic", "negatives": "semi-hard"},
    "semi-hard margin": {"objective": "margin", "negatives": "semi-hard", "margin": 0.3},
}
HEADS |= {name: HEADS["mlp"] for name in OBJECTIVES if name not in HEADS}
# Heads and losses that the cases above do not have yet.
HEADS |= {
    name: heads.small_head(name)
    for name in set(heads.HEADS) - {config.name for config in HEADS.values()}
}
for _objective in typing.get_args(Objective):
    if _objective not in ("nt-xent", "affinity"):
        HEADS[_objective], OBJECTIVES[_objective] = HEADS["mlp"], {"objective": _objective}
LABELS = torch.arange(N) % 4 - 1
DIRECTED = ClassTargets(LABELS, orthonormal_directions(3, 5, seed=0), 0.5)
TARGETS = {"class directions": DIRECTED, **dict.fromkeys(LABELLED, ClassTargets(LABELS))}

PIXELS = torch.zeros(N, 3, 8, 8, dtype=torch.uint8)
IMAGES = resident_images(PIXELS, LABELS, tuple("abcde"), [""] * N)


def normal(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def made(head: HeadConfig) -> TrainState:
    """A model without BatchNorm in the encoder, whose statistics would be each rank's own."""
    encoder = nn.Sequential(
        nn.Conv2d(3, P, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    model = ContrastiveModel(encoder, build_head(head, P, seed=0)).double()
    encoder.get_parameter("0.weight").data = normal(P, 3, 3, 3, seed=1)
    encoder.get_parameter("0.bias").data = normal(P, seed=2)
    return TrainState(model, torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9))


def train(name: str) -> dict[str, Any]:
    """Three steps on this rank's share of the batches, and what the first of them saw."""
    head, target = HEADS[name], TARGETS.get(name)
    config = resolved_config(
        IMAGES,
        encoder=EncoderConfig(name="resnet-small"),
        head=head,
        **{"temperature": 0.2, "batch_size": N, **OBJECTIVES.get(name, {})},
    )
    state, mine, seen = made(head), local_rows(N), {}
    for step in range(3):
        both = normal(2, N, 3, 8, 8, seed=10 + step)[:, mine]
        known = target and target.at(batch_index(N, N, state.step, config.seed))
        outputs, loss, accuracy = train_step(config, state, both.flatten(0, 1), 0.1, known)
        if step == 0:
            gradients = {
                name: p.grad.clone()
                for name, p in state.model.named_parameters()
                if p.grad is not None
            }
            seen = {"loss": loss, "accuracy": accuracy, "gradients": gradients, **outputs._asdict()}
    return {**seen, "last_loss": loss, "weights": state.model.state_dict()}


def collect() -> dict[str, Any]:
    """Every collective by itself, with inputs that tell the ranks apart."""
    rank = distributed.rank()
    rows = (10.0 * rank + torch.arange(4.0).reshape(2, 2)).double().requires_grad_()
    gathered = distributed.gather(rows)
    weights = torch.arange(gathered.numel()).reshape(gathered.shape) * (rank + 1.0)
    (gathered * weights).sum().backward()
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 3).double())]
    parameters.append(nn.Parameter(torch.zeros(5)))  # no gradient: left alone
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    parameters[1].grad = torch.ones(1, 3).double() * rank
    distributed.average_gradients(parameters)
    distributed.barrier()
    return {
        "place": (rank, distributed.world_size()),
        "gathered": gathered.detach(),
        "gradient": rows.grad,
        "averaged": [p.grad for p in parameters],
        "views": gather_views(torch.tensor([[10.0 * rank], [10.0 * rank + 1]])),
        "any": [distributed.any_rank(flag) for flag in (False, True, rank == 1)],
    }


def work(rank: int, ports: dict[int, int], out: Path) -> None:
    """What each of four processes does: as one of four ranks, then two of them as one of two."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank >= world:
            continue
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[world]),
        }
        with distributed.process_group("cpu"):
            found = {"collectives": collect(), **{name: train(name) for name in HEADS}}
        assert distributed.world_size() == 1
        torch.save(found, out / f"{world}-{rank}.pt")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> dict[int, list[dict]]:
    """For each number of ranks, what every rank found."""
    out = tmp_path_factory.mktemp("ranks")
    ports = {world: free_port() for world in WORLDS}
    # A server that has imported everything once forks the ranks.
    mp.set_forkserver_preload(["headwise.pretraining.loop"])
    mp.start_processes(work, (ports, out), nprocs=max(WORLDS), start_method="forkserver")
    return {
        world: [torch.load(out / f"{world}-{rank}.pt") for rank in range(world)] for world in WORLDS
    }


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("world", WORLDS)
def test_ranks_together_equal_one_process(ranks, world, name):
    alone = train(name)
    assert alone["gradients"]["encoder.0.weight"].abs().max() > 1e-6
    for found in ranks[world]:
        # h, z, loss, accuracy, gradients; and after three steps weights and running statistics.
        # Conversion to float32 for the metrics can round either way.
        for key, atol in {"h": 1e-6, "z": 1e-6}.items():
            torch.testing.assert_close(found[name][key], alone[key], rtol=0, atol=atol)
        for key in ("loss", "accuracy", "last_loss", "gradients", "weights"):
            torch.testing.assert_close(found[name][key], alone[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_stay_bit_identical_to_each_other(ranks, world):
    first, *others = ranks[world]
    for other in others:
        for name in HEADS:
            weights, twins = first[name]["weights"], other[name]["weights"]
            assert all(torch.equal(weights[key], twins[key]) for key in weights), name


@pytest.mark.parametrize("world", WORLDS)
def test_collectives(ranks, world):
    scale = sum(range(1, world + 1))
    shares = torch.arange(4.0 * world).reshape(2 * world, 2).double() * scale
    for rank, found in enumerate(each["collectives"] for each in ranks[world]):
        assert found["place"] == (rank, world)
        expected = [
            [10.0 * r + 2 * row, 10.0 * r + 2 * row + 1] for r in range(world) for row in (0, 1)
        ]
        assert found["gathered"].tolist() == expected
        # Each rank's rows receive the sum of what all ranks' losses say about them.
        assert torch.equal(found["gradient"], shares[2 * rank : 2 * rank + 2])
        mean = scale / world
        assert found["averaged"][0].tolist() == [mean, 2 * mean]
        assert found["averaged"][1].tolist() == [[mean - 1] * 3]
        assert found["averaged"][2] is None
        # First views of all ranks, then their twins.
        views = [10.0 * r for r in range(world)] + [10.0 * r + 1 for r in range(world)]
        assert found["views"].flatten().tolist() == views
        assert found["any"] == [False, True, True]


def test_in_one_process_every_collective_is_the_identity(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group("cpu"):
        found = collect()
    assert found["place"] == (0, 1)
    assert found["gathered"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert found["averaged"][0].tolist() == [1.0, 2.0]
    assert found["views"].tolist() == [[0.0], [1.0]]
    assert found["any"] == [False, True, False]
