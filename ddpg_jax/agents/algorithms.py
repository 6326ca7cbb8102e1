"""Algorithms as configurations of one learner: each is about 15 lines over the slots of the assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import jax.numpy as jnp

from ddpg_jax.agents import heads, modules, networks
from ddpg_jax.agents.embeddings import EmbeddingSettings, with_embeddings
from ddpg_jax.agents.factory import (
    make_embedded_networks,
    make_embedding_optimizer,
    make_embeddings,
    make_encoders,
    make_exploration,
    make_loss_noise,
    make_networks,
    make_networks_of_embeddings,
    make_normalizer,
    make_optimizers,
    make_pixel_settings,
    make_unrolled_embeddings,
)
from ddpg_jax.agents.pixels import from_pixels
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.precision import in_float32
from ddpg_jax.agents.recurrent import WindowSettings, recurrent
from ddpg_jax.agents.rewards import with_scaled_rewards
from ddpg_jax.agents.targets import JOINT, SEPARATE, polyak, polyak_critic, smoothing, with_online, with_online_encoder
from ddpg_jax.agents.unrolled import LossWeights, UnrollSettings, with_unrolled_embeddings
from ddpg_jax.config.marks import traced_fields
from ddpg_jax.config.plugins import load
from ddpg_jax.equations.distributional import symexp
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.types import Agent, EnvSpec, Params

if TYPE_CHECKING:
    from ddpg_jax.config.algorithms import (
        D4PGConfig,
        DrQv2Config,
        FastTD3Config,
        MRQConfig,
        TD3Config,
        TD7Config,
    )
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
    if config.algorithm.make_agent is None:
        _check_observations(spec, pictures=config.algorithm.encoder is not None)
    agent: Any = make(config, spec)
    if not isinstance(agent, Agent):
        name = config.algorithm.make_agent
        raise ConfigError(f"algorithm.make_agent={name!r} made {type(agent).__name__}: expected an Agent")
    return in_float32(with_scaled_rewards(agent) if config.algorithm.scale_rewards else agent)


def _check_observations(spec: EnvSpec, *, pictures: bool) -> None:
    """Refuses observations that are not what the networks take."""
    if pictures and not (spec.obs_dtype == "uint8" and len(spec.obs_shape) in (3, 4)):
        raise EnvironmentFault(
            f"observations {spec.obs_dtype} of shape {spec.obs_shape} are not pictures, which algorithm.encoder takes: "
            "expected uint8 of (H, W, C) or (k, H, W, C); give [env.pixels], or leave algorithm.encoder out"
        )
    if not pictures and len(spec.obs_shape) != 1:
        raise EnvironmentFault(
            f"observations of shape {spec.obs_shape} are not vectors: give [algorithm.encoder] if they are pictures, "
            "or flatten them with gymnasium.wrappers.FlattenObservation"
        )


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


def drqv2(config: Config, spec: EnvSpec) -> Agent:
    """DrQ-v2: twin critics that teach the encoder, no target actor, the noise of the behaviour in both losses.

    As published (Yarats et al., arXiv:2107.09645), but for what docs/pixels.md names, and: actions are kept within
    [-1, 1], of which the published code leaves out 1e-6 at both ends; the noise in the actor's loss is that of the next
    update, as the critics' step has been counted; layers are normalised with 1e-6, not 1e-5. n belongs to the replay.
    """
    algorithm = cast("DrQv2Config", config.algorithm)
    actor, critic = make_networks(config, spec)
    disturb = make_loss_noise(config)
    return _assembly(config, spec)(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 2)),
        head=heads.scalar(jnp.min, jnp.min),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config),
        normalizer=make_normalizer(config, spec),
        update_targets=polyak_critic(algorithm.tau),
        next_policy=with_online,
        next_critic=with_online_encoder,
        next_action=disturb,
        actor_action=disturb,
        reuse=lambda encoded: encoded,
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def td7(config: Config, spec: EnvSpec) -> Agent:
    """TD7 without policy checkpoints (Fujimoto et al., arXiv:2306.02451, Algorithm 1).

    Priorities belong to the replay: docs/fidelity.md names them, and what else differs.
    """
    algorithm = cast("TD7Config", config.algorithm)
    actor, critic = make_embedded_networks(config, spec)
    return with_embeddings(
        EmbeddingSettings(*make_embeddings(config, spec), algorithm.target_every, algorithm.tau),
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 2)),
        head=heads.robust(),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config)._replace(encoder=make_embedding_optimizer(config)),
        normalizer=make_normalizer(config, spec),
        next_action=smoothing(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def mrq(config: Config, spec: EnvSpec) -> Agent:
    """MR.Q (Fujimoto et al., arXiv:2501.16142), of vectors; DR.Q by its weights and the replay's fading.

    Priorities belong to the replay, and n and the windows too: docs/fidelity.md names them, and what else differs.
    """
    algorithm = cast("MRQConfig", config.algorithm)
    actor, critic = make_networks_of_embeddings(config, spec)
    encoder = make_embedding_optimizer(config, algorithm.encoder_weight_decay)
    rewards = symexp(jnp.linspace(-algorithm.reward_range, algorithm.reward_range, algorithm.reward_bins))
    weights = algorithm.reward_weight, algorithm.next_weight, algorithm.done_weight, algorithm.contrast_weight
    settings = UnrollSettings(
        *make_unrolled_embeddings(config, spec),
        rewards,
        algorithm.horizon,
        algorithm.target_every,
        algorithm.tau,
        LossWeights(*weights),
        algorithm.contrast_temperature,
    )
    return with_unrolled_embeddings(
        settings,
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 2)),
        head=heads.robust(),
        exploration=make_exploration(config, spec),
        optimizers=make_optimizers(config)._replace(encoder=encoder),
        normalizer=make_normalizer(config, spec),
        next_action=smoothing(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
        max_rejected=algorithm.max_rejected,
        hyperparams=_traced_hyperparams(config),
    )


def _assembly(config: Config, spec: EnvSpec) -> Callable[..., Agent]:
    """What joins the slots: `policy_gradient`, `from_pixels` where it sees pictures, `recurrent` with memory."""
    memory = config.algorithm.memory
    if config.algorithm.encoder is not None:
        return partial(from_pixels, make_pixel_settings(config, spec))
    if memory is None:
        return partial(policy_gradient, pairing=_PAIRINGS[config.algorithm.joint_batch])
    windows = WindowSettings(memory.length, memory.burn_in, memory.keep_every, memory.priority_of_largest)
    return partial(recurrent, windows, make_encoders(config, spec))


def _traced_hyperparams(config: Config) -> tuple[Any, ...]:
    """The numbers by which steps are made: finite in a configuration that was checked, but they may be traced."""
    tables = config.algorithm, config.algorithm.memory, config.algorithm.encoder
    given = [table for table in tables if table is not None]
    values = [getattr(table, field) for table in given for field in traced_fields(type(table))]
    return tuple(value for value in values if value is not None)


_ALGORITHMS = {"ddpg": ddpg, "td3": td3, "d4pg": d4pg, "fasttd3": fasttd3, "drqv2": drqv2, "td7": td7, "mrq": mrq}

_PAIRINGS = {False: SEPARATE, True: JOINT}
_JOIN: dict[str, heads.JoinFn] = {"min": heads.lowest, "mean": heads.average}
_REDUCE: dict[str, heads.ReduceFn] = {"min": jnp.min, "mean": jnp.mean, "first": heads.first}


def _chosen(algorithm: TD3Config) -> heads.ChooseFn:
    return heads.every if algorithm.target_subset is None else heads.random_subset(algorithm.target_subset)
