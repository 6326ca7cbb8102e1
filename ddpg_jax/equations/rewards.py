"""The scale of rewards: the running standard deviation of the discounted return, or the mean size of a reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

EPSILON = 1e-8
"""Added to the variance."""

PRIOR_SIZE = 1e-4
"""Weight of the variance 1 that there is before the first reward."""


class ReturnMoments(NamedTuple):
    """Running moments of the discounted returns of one seed; arrays of NumPy or of jax.

    Attributes:
      returns: discounted sums of the rewards of the episodes in progress, `[..., E]`.
      size: returns so far, `[...]`.
      mean: of them, `[...]`.
      variance: `[...]`.
      largest: absolute return so far, `[...]`; `()` where that is not asked for.
    """

    returns: Any
    size: Any
    mean: Any
    variance: Any
    largest: Any = ()


def observe_rewards(moments: ReturnMoments, reward: Any, gamma: Any) -> ReturnMoments:
    """Takes note of a step, R ← gamma·R + r, and of R in the moments.

    Where an episode ends, R is to be set to 0 afterwards.

    Args:
      moments: before it.
      reward: r of each environment, `[..., E]`.
      gamma: discount of one step, `[]`.

    Returns:
      The moments with it; all environments of a seed count alike.

    References:
      Engstrom et al., "Implementation matters in deep policy gradients" (arXiv:2005.12729), section 3, item 2;
      Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), eq.
      2.1. `NormalizeReward` of gymnasium and `VecNormalize` of stable-baselines3 do so, with the same constants.
    """
    returns = gamma * moments.returns + reward
    size = moments.size + returns.shape[-1]
    share = returns.shape[-1] / size
    mean = returns.mean(-1)
    offset = mean - moments.mean
    spread = ((returns - mean[..., None]) ** 2).mean(-1) + (1.0 - share) * offset**2
    variance = moments.variance + share * (spread - moments.variance)
    return ReturnMoments(returns, size, moments.mean + share * offset, variance, moments.largest)


def reward_scale(moments: ReturnMoments) -> Any:
    """What rewards are divided by, √(variance + EPSILON), `[...]`; their mean is not subtracted."""
    return (moments.variance + EPSILON) ** 0.5


class RewardMeasure(NamedTuple):
    """What a loop measures of rewards.

    Attributes:
      size: `reward -> reward`, of any shape: what of it is summed.
      gamma: discount of the sums, `[]`.
      scale: `moments -> [...]`, what rewards are divided by.
      begin: `zeros [...] -> largest`, of moments of a run that begins.
      note: `moments -> moments`, with what is kept beside the sums.
    """

    size: Callable[[Any], Any]
    gamma: Any
    scale: Callable[[ReturnMoments], Any]
    begin: Callable[[Any], Any] = lambda zeros: ()
    note: Callable[[ReturnMoments], ReturnMoments] = lambda moments: moments

    def observe(self, moments: ReturnMoments, reward: Any) -> ReturnMoments:
        """`observe_rewards` of what is summed."""
        return self.note(observe_rewards(moments, self.size(reward), self.gamma))


def deviation_of_returns(gamma: Any) -> RewardMeasure:
    """The deviation of discounted sums of rewards."""
    return RewardMeasure(lambda reward: reward, gamma, reward_scale)


def limited_returns(gamma: Any, limit: float) -> RewardMeasure:
    """The deviation of discounted sums of rewards, or the largest of them in size over a limit where that is more.

    So a distribution over returns up to the limit, on either side of 0, holds all that there have been.

    References:
      Lee et al., "Hyperspherical normalization for scalable deep reinforcement learning" (arXiv:2502.15280).
    """

    def note(moments: ReturnMoments) -> ReturnMoments:
        xp = moments.mean.__array_namespace__()
        return moments._replace(largest=xp.maximum(moments.largest, abs(moments.returns).max(-1)))

    def scale(moments: ReturnMoments) -> Any:
        xp = moments.mean.__array_namespace__()
        return xp.maximum(reward_scale(moments), moments.largest / limit)

    return RewardMeasure(lambda reward: reward, gamma, scale, lambda zeros: zeros, note)


def mean_size() -> RewardMeasure:
    """The mean absolute value of all rewards so far; 1 while they are all 0.

    References:
      Fujimoto et al., "Towards general-purpose model-free reinforcement learning" (arXiv:2501.16142).
    """

    def scale(moments: ReturnMoments) -> Any:
        xp = moments.mean.__array_namespace__()
        return xp.where(moments.mean > 0, moments.mean, xp.ones_like(moments.mean))

    return RewardMeasure(abs, 0.0, scale)


def reward_measure(kind: str, gamma: Any, limit: float | None = None) -> RewardMeasure:
    """The measure of a name: "deviation" of sums discounted by gamma, which may have a limit, or "mean_size"."""
    of_returns = deviation_of_returns(gamma) if limit is None else limited_returns(gamma, limit)
    return {"deviation": of_returns, "mean_size": mean_size()}[kind]
