"""Sparse matrices that multiply dense ones, as torch multiplies them fastest."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def sparse_rows(counts: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    """A matrix in compressed sparse rows, given its entries row by row.

    Indices are int32: torch's CPU product converts int64 ones on every call, which costs more than the product.

    Args:
        counts: entries in each row, int64 (N,).
        columns: each entry's column, ascending within a row, (E,) with E = counts.sum().
        values: each entry's value (E,).
        width: how many columns the matrix has.

    Returns:
        Sparse CSR (N, width) of the values' type.
    """
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    size = (len(counts), width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls the layout beta on first use
        return torch.sparse_csr_tensor(starts.int(), columns.int(), values, size, check_invariants=False)
