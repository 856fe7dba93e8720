"""The nearest rows of a table of `h`."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.errors import UserError
from headwise.evaluation.protocols.knn import nearest_rows


def neighbours(
    queries: Float[Tensor, "m p"], bank: Float[Tensor, "n p"], k: int, *, other: bool = False
) -> tuple[Int64[Tensor, "m k"], Float[Tensor, "m k"]]:
    """Return the rows of `bank` that are most similar to each query, and their cosine similarities,
    falling. Exact; memory beyond the tables is bounded.

    `other`: queries and bank are the same table, and no row is its own neighbour.
    """
    most = len(bank) - other
    if not 1 <= k <= most:
        raise UserError(f"-k must lie in 1..{most:,}, the rows that can be found; got {k:,}")
    blocks = list(nearest_rows(bank, queries, k, leave_one_out=other))
    return torch.cat([rows for _, rows in blocks]), torch.cat([values for values, _ in blocks])
