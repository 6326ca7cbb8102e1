"""Algorithms as configurations of one learner: each is about 15 lines over the slots of the assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import jax.numpy as jnp

from ddpg_jax.agents import heads, modules, networks
from ddpg_jax.agents.factory import (
    make_encoders,
    make_exploration,
    make_networks,
    make_normalizer,
    make_optimizers,
)
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.precision import in_float32
from ddpg_jax.agents.recurrent import WindowSettings, recurrent
from ddpg_jax.agents.rewards import with_scaled_rewards
from ddpg_jax.agents.targets import polyak, polyak_critic, smoothing, with_online
from ddpg_jax.config.marks import traced_fields
from ddpg_jax.config.plugins import load
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.types import Agent, EnvSpec, Params

if TYPE_CHECKING:
    from ddpg_jax.config.algorithms import D4PGConfig, FastTD3Config, TD3Config
    from ddpg_jax.config.schema import Config


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """The agent of a configuration, for environments of the given kind.

    Raises:
      ConfigError: it is one of one's own, and is not there.
      EnvironmentFault: the observations are not vectors.
    """
    return find_make_agent(config)(config, spec)


def find_make_agent(config: Config) -> MakeAgentFn:
    """What makes the agent of a configuration, found now, so that it may be called in another thread.

    Raises:
      ConfigError: it is one of one's own, and is not there, or no function.
    """
    own = config.algorithm.make_agent
    if own is None:
        return partial(_make, _ALGORITHMS[config.algorithm.name])
    make: Any = load("agent", own, "algorithm.make_agent")
    if not callable(make):
        raise ConfigError(f"algorithm.make_agent={own!r} is {make!r}: expected a function (config, spec) -> Agent")
    return partial(_make, cast("MakeAgentFn", partial(make, **config.algorithm.kwargs)))


def _make(make: MakeAgentFn, config: Config, spec: EnvSpec) -> Agent:
    if len(spec.obs_shape) != 1 and config.algorithm.make_agent is None:
        raise EnvironmentFault(
            f"observations of shape {spec.obs_shape} are not vectors: algorithm.name={config.algorithm.name!r} learns "
            f"from vectors only; flatten them with gymnasium.wrappers.FlattenObservation"
        )
    agent: Any = make(config, spec)
    if not isinstance(agent, Agent):
        name = config.algorithm.make_agent
        raise ConfigError(f"algorithm.make_agent={name!r} made {type(agent).__name__}: expected an Agent")
    return in_float32(with_scaled_rewards(agent) if config.algorithm.scale_rewards else agent)


MakeAgentFn: TypeAlias = "Callable[[Config, EnvSpec], Agent]"
"""Makes the learner of one seed, for environments of the given kind."""


def ddpg(config: Config, spec: EnvSpec) -> Agent:
    """Deep deterministic policy gradient (Lillicrap et al., arXiv:1509.02971, Algorithm 1)."""
    algorithm = config.algorithm
    actor, critic = make_networks(config, spec)
    return _assembly(config, spec)(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=heads.scalar(),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config),
        normalizer=make_normalizer(config, spec),
        update_targets=polyak(algorithm.tau),
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def td3(config: Config, spec: EnvSpec) -> Agent:
    """Twin delayed DDPG (Fujimoto et al., arXiv:1802.09477, Algorithm 1), with any number of critics."""
    algorithm = cast("TD3Config", config.algorithm)
    actor, critic = make_networks(config, spec)
    return _assembly(config, spec)(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, algorithm.num_critics)),
        head=heads.scalar(_REDUCE[algorithm.bootstrap], _REDUCE[algorithm.ascend], _chosen(algorithm)),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config),
        normalizer=make_normalizer(config, spec),
        update_targets=polyak(algorithm.tau),
        next_action=smoothing(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def d4pg(config: Config, spec: EnvSpec) -> Agent:
    """Distributional DDPG of one actor (Barth-Maron et al., arXiv:1804.08617, Algorithm 1); n belongs to the replay."""
    algorithm = cast("D4PGConfig", config.algorithm)
    actor, critic = make_networks(config, spec, outputs=algorithm.num_atoms)
    return _assembly(config, spec)(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=heads.categorical(jnp.linspace(algorithm.v_min, algorithm.v_max, algorithm.num_atoms)),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config),
        normalizer=make_normalizer(config, spec),
        update_targets=polyak(algorithm.tau),
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def fasttd3(config: Config, spec: EnvSpec) -> Agent:
    """FastTD3: two categorical critics, no target actor, target critics that follow every step (arXiv:2505.22642)."""
    algorithm = cast("FastTD3Config", config.algorithm)
    final = modules.normal_init(algorithm.actor_final_deviation)
    actor, critic = make_networks(config, spec, outputs=algorithm.num_atoms, actor_final=final)
    atoms = jnp.linspace(algorithm.v_min, algorithm.v_max, algorithm.num_atoms)
    return _assembly(config, spec)(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 2)),
        head=heads.categorical(atoms, _JOIN[algorithm.bootstrap], _REDUCE[algorithm.bootstrap]),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config),
        normalizer=make_normalizer(config, spec),
        update_target_critic=polyak_critic(algorithm.tau),
        next_policy=with_online,
        next_action=smoothing(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def _assembly(config: Config, spec: EnvSpec) -> Callable[..., Agent]:
    """What joins the slots: `policy_gradient`, or `recurrent` for an agent with memory."""
    memory = config.algorithm.memory
    if memory is None:
        return policy_gradient
    windows = WindowSettings(memory.length, memory.burn_in, memory.keep_every, memory.priority_of_largest)
    return partial(recurrent, windows, make_encoders(config, spec))


def _traced_hyperparams(config: Config) -> tuple[Any, ...]:
    """The numbers by which steps are made: finite in a configuration that was checked, but they may be traced."""
    tables = config.algorithm, config.algorithm.memory
    given = [table for table in tables if table is not None]
    values = [getattr(table, field) for table in given for field in traced_fields(type(table))]
    return tuple(value for value in values if value is not None)


_ALGORITHMS = {"ddpg": ddpg, "td3": td3, "d4pg": d4pg, "fasttd3": fasttd3}

_JOIN: dict[str, heads.JoinFn] = {"min": heads.lowest, "mean": heads.average}
_REDUCE: dict[str, heads.ReduceFn] = {"min": jnp.min, "mean": jnp.mean, "first": heads.first}


def _chosen(algorithm: TD3Config) -> heads.ChooseFn:
    return heads.every if algorithm.target_subset is None else heads.random_subset(algorithm.target_subset)
