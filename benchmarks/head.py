"""The Transformer head over a batch: time and memory of a forward and backward pass by tokens."""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from headwise import rng
from headwise.heads import HeadConfig, build_head
from headwise.runtime import hardware
from measure import table, time_and_memory

P = 512
CONFIGS = {
    "default": HeadConfig(name="transformer"),
    "as published": HeadConfig(name="transformer", depth=10, norm="post"),
}


def prepare(name: str, tokens: int) -> Callable[[], None]:
    device = hardware.resolve_device("auto")
    precision = hardware.resolve_precision("auto", device)
    head = build_head(CONFIGS[name], P).to(device)
    h = torch.randn(tokens, P, generator=rng.generator(0)).to(device).requires_grad_()

    def work(h: torch.Tensor = h) -> None:
        with hardware.autocast(device, precision):
            z = head(h, views=2)
        z.float().square().mean().backward()

    work(h[:64])  # libraries initialise at the first call
    return work


def main() -> None:
    device = hardware.resolve_device("auto")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-tokens", type=int, default=65536)
    parser.add_argument("--seconds", type=float, default=60, help="leave out what takes longer")
    parser.add_argument("--rounds", type=int, default=1)
    flags = parser.parse_args()
    rows = []
    expected = dict.fromkeys(CONFIGS, 0.0)
    for tokens in (2**k for k in range(11, 17) if 2**k <= flags.max_tokens):
        if min(expected.values()) > flags.seconds:
            break
        row: list[object] = [tokens]
        for name in CONFIGS:
            if expected[name] > flags.seconds:
                row += ["", ""]
                continue
            taken, extra_mib = time_and_memory(partial(prepare, name, tokens), flags.rounds)
            expected[name] = 4 * taken  # of twice the tokens
            row += [taken, extra_mib]
        rows.append(row)
    print("## The Transformer head\n")
    print(
        f"Forward and backward pass on the {device}, in "
        f"{hardware.resolve_precision('auto', device)}, with p = {P}. A token is a view, and every "
        "token attends to all tokens. Default: 4 pre-norm blocks. As published: 10 post-norm "
        "blocks, but with queries, keys and values projected once. MiB: peak memory beyond the "
        f"weights and h. Rounds: {flags.rounds}. Sizes that would take more than "
        f"{flags.seconds:.0f} s are left out.\n"
    )
    columns = [f"{name}, {unit}" for name in CONFIGS for unit in ("s", "MiB")]
    print(table(["tokens", *columns], rows))


if __name__ == "__main__":
    main()
