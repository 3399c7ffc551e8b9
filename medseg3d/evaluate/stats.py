"""Many numbers in a few, which say how many they stand for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

RESAMPLES: Final = 2000
"""Draws of the bootstrap."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, spread and middle of the `n` values that are numbers; `undefined` were not.

    `sd` is the sample's (n - 1). `low` and `high` bound the mean with 95 % confidence (bootstrap,
    percentile method, fixed seed). What cannot be told from `n` values is nan.
    """

    mean: float
    sd: float
    low: float
    high: float
    median: float
    n: int
    undefined: int


def summarize(values: Sequence[float]) -> Summary:
    """Describe values; nan is left out of every figure and counted in `undefined`."""
    defined = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    n = len(defined)
    if n == 0:
        return Summary(math.nan, math.nan, math.nan, math.nan, math.nan, 0, len(values))
    draws = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(defined[draws].mean(axis=1), (0.025, 0.975))
    return Summary(
        mean=float(defined.mean()),
        sd=float(defined.std(ddof=1)) if n > 1 else math.nan,
        median=float(np.median(defined)),
        low=float(low) if n > 1 else math.nan,
        high=float(high) if n > 1 else math.nan,
        n=n,
        undefined=len(values) - n,
    )
