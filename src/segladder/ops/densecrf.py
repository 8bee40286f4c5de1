"""The authors' C++ code of the dense CRF (the `crf` extra), on one image or on several in a pool of processes.

It is a module of its own since the processes of the pool import it: without torch they start in a fraction of a second.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from multiprocessing import current_process
from multiprocessing.pool import Pool
from typing import NamedTuple

import numpy as np

from segladder.machine import cores, pool


class Problem(NamedTuple):
    """An image uint8 (H, W, 3), energies float32 (K, H, W), and the parameters of `segladder.ops.crf.dense_crf`."""

    image: np.ndarray
    unary: np.ndarray
    iterations: int
    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float


def solve(problem: Problem) -> np.ndarray:
    """Probabilities float32 (K, H, W) after mean-field inference."""
    count, height, width = problem.unary.shape
    crf = import_module("pydensecrf.densecrf").DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(problem.unary.reshape(count, -1)))
    crf.addPairwiseGaussian(sxy=problem.gaussian_sxy, compat=problem.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=problem.bilateral_sxy,
        srgb=problem.bilateral_srgb,
        rgbim=np.ascontiguousarray(problem.image),
        compat=problem.bilateral_compat,
    )
    return np.asarray(crf.inference(problem.iterations), dtype=np.float32).reshape(problem.unary.shape)


def solve_each(problems: Sequence[Problem]) -> list[np.ndarray]:
    """`solve` of each, several at once where this process may use several cores."""
    processes = _pool() if len(problems) > 1 else None
    return processes.map(solve, problems, chunksize=1) if processes else [solve(problem) for problem in problems]


@cache
def _pool() -> Pool | None:
    """Processes that stay until this one ends; none for one core, or in a process that may not start any."""
    workers = cores(most=int(os.environ.get("OMP_NUM_THREADS") or 0) or None)
    if workers < 2 or current_process().daemon:
        return None
    processes = pool("spawn", workers)
    atexit.register(processes.terminate)
    return processes
