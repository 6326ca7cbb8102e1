"""Exploration of one environment: noise on the action, on the parameters, or now and then an action at random."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ddpg_jax.agents.slots import Exploration, Noise, PolicyFn
from ddpg_jax.types import ActFn, Array, HostArray, TrainState, Tree

PLACES = 2**20
"""Places of the table of normal numbers at which a perturbation may begin."""

NOT_PERTURBED = ("LayerNorm", "BatchNorm", "RMSNorm")
"""Leaves whose path names such a module keep their values under parameter noise."""


def explorer(policy: Callable[[TrainState, Array], Array], exploration: Exploration) -> ActFn:
    """How an agent acts in the environments of a seed, each explored on its own; actions are kept inside [-1, 1].

    Args:
      policy: `(state, obs [*O]) -> action [A]`, greedy.
      exploration: of one environment.
    """

    def act(state: TrainState, act_state: Tree, obs: Array, first: Array, keys: Array) -> tuple[Array, Tree]:
        def one(act_state: Tree, obs: Array, first: Array, key: Array) -> tuple[Array, Tree]:
            def with_actor(actor: Tree) -> Array:
                return policy(state._replace(params=state.params._replace(actor=actor)), obs)

            return exploration.act(with_actor, state.params.actor, act_state, key, first)

        action, act_state = jax.vmap(one)(act_state, obs, first, keys)
        return jnp.clip(action, -1.0, 1.0), act_state

    return act


def additive(noise: Noise) -> Exploration:
    """The greedy action plus noise."""

    def act(policy: PolicyFn, params: Tree, state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        drawn, state = noise.sample(state, key, first)
        return policy(params) + drawn, state

    return Exploration(noise.init, act)


def epsilon_uniform(exploration: Exploration, epsilon: Array | float) -> Exploration:
    """With probability epsilon, an action drawn from U(-1, 1) for each component in the place of the other.

    Args:
      exploration: of the other steps; its state goes on as if its action had been taken.
      epsilon: in [0, 1], `[]`.
    """

    def act(policy: PolicyFn, params: Tree, state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        explore_key, coin_key, uniform_key = jax.random.split(key, 3)
        action, state = exploration.act(policy, params, state, explore_key, first)
        drawn = jax.random.uniform(uniform_key, action.shape, minval=-1.0, maxval=1.0)
        return jnp.where(jax.random.uniform(coin_key) < epsilon, drawn, action), state

    return Exploration(exploration.init, act)


class Perturbation(NamedTuple):
    """The state of `parameter`.

    Attributes:
      place: where the perturbation of this episode begins in the table, int32 `[]`; -1 before the first.
      sigma: deviation of the noise on the parameters, `[]`.
      squares: sum of the squared distances since sigma was last adapted, `[]`.
      steps: their number, int32 `[]`.
    """

    place: Array
    sigma: Array
    squares: Array
    steps: Array


def parameter(
    sigma: Array | float, target_distance: Array | float, adapt_every: int, adapt_factor: Array | float
) -> Exploration:
    """Acts with perturbed parameters, theta + sigma·epsilon, epsilon ~ N(0, I) drawn anew with each episode.

    Sigma is adapted to what it does to actions: the root mean square, over steps and components, of the difference
    between the perturbed and the plain action is held near a target. Where the perturbed network has layer
    normalisation, as it should, the parameters of that are left alone.

    It differs from the published code in two ways. There a perturbed copy of the network is frozen when an episode
    begins; here theta goes on learning under the same epsilon, so nothing of the size of the network is kept for each
    environment. And there a second perturbation, drawn for the purpose, measures the distance on a batch of the replay;
    here it is measured at the observations that are acted on, with the perturbation that acts, so each environment
    has a sigma of its own.

    Epsilon is a piece of a table of normal numbers that begins at a random place, and only the place is kept: under
    `vmap` epsilon would be drawn in every step, needed or not, which at 64-64 costs a third of an update.

    Args:
      sigma: deviation at the start, `[]`.
      target_distance: delta, in units of half the action range, `[]`; noise on actions of this deviation is as far off.
      adapt_every: steps of the environment between two adaptations.
      adapt_factor: sigma is multiplied by it where the distance is at most the target, or else divided, `[]`.

    References:
      Plappert et al., "Parameter space noise for exploration" (arXiv:1706.01905), section 3 and appendix C; Salimans et
      al., "Evolution strategies as a scalable alternative to reinforcement learning" (arXiv:1703.03864), for the table.
    """

    def init() -> Tree:
        none = jnp.zeros((), jnp.int32)
        return Perturbation(none - 1, jnp.asarray(sigma, jnp.float32), jnp.zeros(()), none)

    def act(policy: PolicyFn, params: Tree, state: Tree, key: Array, first: Array) -> tuple[Array, Tree]:
        drawn = jax.random.randint(key, (), 0, PLACES)
        place = jnp.where(first | (state.place < 0), drawn, state.place)
        action = policy(perturb(params, state.sigma, place))
        squares = state.squares + jnp.mean(jnp.square(action - policy(params)))
        return action, adapt_sigma(Perturbation(place, state.sigma, squares, state.steps + 1))

    def adapt_sigma(state: Perturbation) -> Perturbation:
        due = state.steps == adapt_every
        near = jnp.sqrt(state.squares / adapt_every) <= target_distance
        sigma = jnp.where(near, state.sigma * adapt_factor, state.sigma / adapt_factor)
        return Perturbation(
            state.place,
            jnp.where(due, sigma, state.sigma),
            jnp.where(due, jnp.zeros_like(state.squares), state.squares),
            jnp.where(due, jnp.zeros_like(state.steps), state.steps),
        )

    return Exploration(init, act)


def perturb(params: Tree, sigma: Array | float, place: Array) -> Tree:
    """The parameters plus sigma times the normal numbers at a place of the table, but for the layers that normalise.

    Args:
      params: floating-point leaves.
      sigma: `[]`.
      place: int32 `[]`, from 0 to `PLACES` - 1.
    """
    flat, unravel = ravel_pytree(params)
    table = jnp.asarray(_normal_numbers(PLACES + flat.size))
    noise = unravel(sigma * jax.lax.dynamic_slice(table, (place,), flat.shape))  # so `flat` itself is never made

    def chosen(path: tuple[object, ...], plain: Array, moved: Array) -> Array:
        return plain if any(name in jax.tree_util.keystr(path) for name in NOT_PERTURBED) else plain + moved

    return jax.tree_util.tree_map_with_path(chosen, params, noise)


@cache
def _normal_numbers(count: int) -> HostArray:
    """A table of N(0, 1), `[count]`, the same in every process."""
    return np.random.Generator(np.random.Philox(key=0)).standard_normal(count, dtype=np.float32)
