"""How much of the order of settings each field explains by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddpg_jax.types import HostArray

LEAST_SETTINGS = 8
"""With fewer, chance alone explains much."""

_BINS = 4
"""Groups of equal size into which numbers are put that have more values."""


def importance(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of the variance of the settings' ranks that is explained by each field alone.

    It is epsilon squared of a one-way analysis of variance (Kelley 1935), which is about 0 for a field that makes no
    difference, whatever its number of values; what two fields do only together counts for neither. Only settings that
    were trained the longest are compared.

    Args:
      entries: of a ranking, with "values", "interquartile_mean" and "step".

    Returns:
      Shares in [0, 1] by path, the largest first; empty with fewer than `LEAST_SETTINGS` settings that have scores.
    """
    scored = [entry for entry in entries if entry["interquartile_mean"] is not None]
    longest = [entry for entry in scored if entry["step"] == max(each["step"] for each in scored)]
    if len(longest) < LEAST_SETTINGS:
        return {}
    scores = np.array([entry["interquartile_mean"] for entry in longest])
    fields = list(dict.fromkeys(name for entry in longest for name in entry["values"]))
    found = {
        name: epsilon_squared(_groups([entry["values"].get(name) for entry in longest]), scores) for name in fields
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def epsilon_squared(groups: HostArray, scores: HostArray) -> float:
    """Epsilon squared of the ranks of scores `[N]` over groups `[N]`, whole numbers, not below 0."""
    _, of = np.unique(groups, return_inverse=True)
    count = of.max() + 1
    if not 1 < count < len(scores):
        return 0.0
    ranks = _rank(scores)
    means = np.bincount(of, ranks) / np.bincount(of)
    total = float(np.sum((ranks - ranks.mean()) ** 2))
    if total == 0.0:
        return 0.0
    within = float(np.sum((ranks - means[of]) ** 2))
    return max(0.0, 1 - within / (len(scores) - count) / (total / (len(scores) - 1)))


def _rank(scores: HostArray) -> HostArray:
    """Their places in order; equal scores share the mean of theirs."""
    from scipy.stats import rankdata  # which takes long to import

    return rankdata(scores)


def _groups(values: Sequence[Any]) -> HostArray:
    """A number for each value: equal for equal ones, or for numbers of one quarter where there are many."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    if numbers and len(set(values)) > _BINS:
        places = _rank(np.array(values, np.float64)) - 0.5
        return np.floor(places * _BINS / len(values)).astype(np.int64)
    texts = [json.dumps(each, sort_keys=True) for each in values]
    return np.array([sorted(set(texts)).index(each) for each in texts])
