"""Prioritised replay: how likely a transition is drawn, and how it is weighted. For NumPy and jax.numpy alike.

All of Schaul et al., "Prioritized experience replay" (arXiv:1511.05952), proportional variant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LARGEST_ERROR = 1e30
"""Errors count as no larger than this, and as this where they are NaN; that a learner diverges is told elsewhere."""

LARGEST_COUNT = 2**31 - 1
"""Updates of a run count as no more than this, as their counter on the device ends there."""


class Prioritization(NamedTuple):
    """The numbers of prioritised replay; all but the last three may be traced, `[]`.

    Attributes:
      alpha: exponent of the priorities, in [0, 1]; 0 draws uniformly.
      beta: exponent of the weights at the first update, in [0, 1].
      beta_end: that at the last update; between them it is linear in the number of updates.
      epsilon: added to the absolute error, positive.
      updates: updates of the run.
      fade: what priorities are multiplied by for each transition that has come since; 1: they do not fade.
      fade_floor: the least that is left of them.
    """

    alpha: Any
    beta: Any
    beta_end: Any
    epsilon: Any
    updates: int
    fade: float = 1.0
    fade_floor: float = 0.0

    @property
    def fades(self) -> bool:
        """Whether older transitions are drawn less often."""
        return self.fade < 1


def fading(age: Any, rule: Prioritization) -> Any:
    """What is left of a priority, max(fade^age, fade_floor).

    Args:
      age: transitions that have come since, a floating-point array `[...]`.
      rule: with both numbers.

    Returns:
      `[...]`, in [0, 1].
    """
    xp = age.__array_namespace__()
    return xp.maximum(rule.fade**age, xp.full_like(age, rule.fade_floor))


def priority(td_error: Any, rule: Prioritization) -> Any:
    """The priority of a transition, p = (|δ| + ε)^α, to which the probability of its draw is proportional.

    Args:
      td_error: δ, its last temporal-difference error, `[...]`.
      rule: with α and ε.

    Returns:
      p, `[...]`, finite.

    References:
      Schaul et al., eq. 1 and section 3.3.
    """
    xp = td_error.__array_namespace__()
    return (xp.fmin(xp.abs(td_error), xp.full_like(td_error, LARGEST_ERROR)) + rule.epsilon) ** rule.alpha


def importance_weight(priorities: Any, beta: Any) -> Any:
    """Weights that make up for unequal draws, (N·P)^-β over the largest of the batch.

    N and the sum of all priorities cancel: w = (min p / p)^β, so equal priorities have weights of exactly 1.

    Args:
      priorities: p of the transitions of a batch, `[..., B]`, positive.
      beta: β, in [0, 1]; 0 makes up for nothing.

    Returns:
      w, `[..., B]`, at most 1.

    References:
      Schaul et al., section 3.4.
    """
    return (priorities.min(-1, keepdims=True) / priorities) ** beta


def annealed_beta(made: Any, rule: Prioritization) -> Any:
    """β, linear in the number of updates from its first value to its last.

    Args:
      made: updates so far, an integer array `[]`.
      rule: with both values, and the updates of the run.

    References:
      Schaul et al., section 3.4.
    """
    share = (made / min(max(1, rule.updates), LARGEST_COUNT)).clip(0.0, 1.0)
    return rule.beta + (rule.beta_end - rule.beta) * share
