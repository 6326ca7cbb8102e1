"""Algorithms as configurations of one learner: each is about 15 lines over the slots of the assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from math import prod
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import optax

from ddpg_jax.agents import exploration as explorations
from ddpg_jax.agents import heads, networks, noise, normalize
from ddpg_jax.agents.policy_gradient import policy_gradient, polyak, polyak_critic, smoothed, with_online
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Agent, Array, EnvSpec, Exploration, Network, Noise, Normalizer, Params

if TYPE_CHECKING:
    from ddpg_jax.config import Config
    from ddpg_jax.sections import (
        D4PGConfig,
        FastTD3Config,
        GaussianPerEnvConfig,
        LearnerConfig,
        OUConfig,
        ParameterConfig,
        ScheduledConfig,
        TD3Config,
    )


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """The agent of a configuration, for environments of the given kind.

    Raises:
      EnvironmentFault: the observations are not vectors.
    """
    if len(spec.obs_shape) != 1:
        raise EnvironmentFault(
            f"observations of shape {spec.obs_shape} are not vectors: algorithm.name={config.algorithm.name!r} learns "
            f"from vectors only; flatten them with gymnasium.wrappers.FlattenObservation"
        )
    return in_float32(_ALGORITHMS[config.algorithm.name](config, make_exploration(config, spec), spec))


def in_float32(agent: Agent) -> Agent:
    """The same agent with full products of float32 factors, for which some accelerators take less by default."""

    def under(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            with jax.default_matmul_precision("float32"):
                return function(*arguments)

        return call

    acting = {"act": under(agent.act), "policy": under(agent.policy)}
    return agent._replace(**acting, update=under(agent.update), value=under(agent.value))


def ddpg(config: Config, exploration: Exploration, spec: EnvSpec) -> Agent:
    """Deep deterministic policy gradient (Lillicrap et al., arXiv:1509.02971, Algorithm 1)."""
    algorithm = config.algorithm
    actor, critic = _mlps(config, spec)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=heads.scalar(),
        exploration=exploration,
        optimizers=_optimizers(config),
        normalizer=_normalizer(config, spec),
        follow=polyak(algorithm.tau),
    )


def td3(config: Config, exploration: Exploration, spec: EnvSpec) -> Agent:
    """Twin delayed DDPG (Fujimoto et al., arXiv:1802.09477, Algorithm 1), with any number of critics."""
    algorithm = cast("TD3Config", config.algorithm)
    actor, critic = _mlps(config, spec)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, algorithm.num_critics)),
        head=heads.scalar(_REDUCE[algorithm.bootstrap], _REDUCE[algorithm.ascend], _chosen(algorithm)),
        exploration=exploration,
        optimizers=_optimizers(config),
        normalizer=_normalizer(config, spec),
        follow=polyak(algorithm.tau),
        next_action=smoothed(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
    )


def d4pg(config: Config, exploration: Exploration, spec: EnvSpec) -> Agent:
    """Distributional DDPG of one actor (Barth-Maron et al., arXiv:1804.08617, Algorithm 1); n belongs to the replay."""
    algorithm = cast("D4PGConfig", config.algorithm)
    actor, critic = _mlps(config, spec, outputs=algorithm.num_atoms)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=heads.categorical(jnp.linspace(algorithm.v_min, algorithm.v_max, algorithm.num_atoms)),
        exploration=exploration,
        optimizers=_optimizers(config),
        normalizer=_normalizer(config, spec),
        follow=polyak(algorithm.tau),
    )


def fasttd3(config: Config, exploration: Exploration, spec: EnvSpec) -> Agent:
    """FastTD3: two categorical critics, no target actor, target critics that follow every step (arXiv:2505.22642)."""
    algorithm = cast("FastTD3Config", config.algorithm)
    final = networks.normal_law(algorithm.actor_final_deviation)
    actor, critic = _mlps(config, spec, outputs=algorithm.num_atoms, actor_final=final)
    atoms = jnp.linspace(algorithm.v_min, algorithm.v_max, algorithm.num_atoms)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 2)),
        head=heads.categorical(atoms, _JOIN[algorithm.bootstrap], _REDUCE[algorithm.bootstrap]),
        exploration=exploration,
        optimizers=_optimizers(config),
        normalizer=_normalizer(config, spec),
        follow_critic=polyak_critic(algorithm.tau),
        next_policy=with_online,
        next_action=smoothed(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
    )


_ALGORITHMS = {"ddpg": ddpg, "td3": td3, "d4pg": d4pg, "fasttd3": fasttd3}

_JOIN: dict[str, heads.JoinFn] = {"min": heads.lowest, "mean": heads.average}
_REDUCE: dict[str, heads.ReduceFn] = {"min": jnp.min, "mean": jnp.mean, "first": heads.first}


def _chosen(algorithm: TD3Config) -> heads.ChooseFn:
    return heads.every if algorithm.target_subset is None else heads.random_subset(algorithm.target_subset)


def make_exploration(config: Config, spec: EnvSpec) -> Exploration:
    """The exploration of a configuration, of one environment."""
    chosen, epsilon = _EXPLORATIONS[config.exploration.kind](config, spec.action_size), config.exploration.epsilon
    return chosen if epsilon is None else explorations.epsilon_uniform(chosen, epsilon)


def _none(config: Config, size: int) -> Exploration:
    return explorations.additive(noise.zero(size))


def _gaussian(config: Config, size: int) -> Exploration:
    return explorations.additive(_of_scale(config, partial(noise.gaussian, size)))


def _ou(config: Config, size: int) -> Exploration:
    settings = cast("OUConfig", config.exploration)
    make = partial(noise.ornstein_uhlenbeck, size, settings.theta, dt=settings.dt)
    return explorations.additive(_of_scale(config, lambda sigma: make(sigma=sigma)))


def _gaussian_per_env(config: Config, size: int) -> Exploration:
    settings = cast("GaussianPerEnvConfig", config.exploration)
    return explorations.additive(noise.gaussian_per_env(size, settings.sigma_min, settings.sigma_max))


def _parameter(config: Config, size: int) -> Exploration:
    it = cast("ParameterConfig", config.exploration)
    return explorations.parameter(it.sigma, it.target_distance, it.adapt_every, it.adapt_factor)


_EXPLORATIONS: dict[str, Callable[[Config, int], Exploration]] = {
    "none": _none,
    "gaussian": _gaussian,
    "ou": _ou,
    "gaussian_per_env": _gaussian_per_env,
    "parameter": _parameter,
}


def _of_scale(config: Config, make: Callable[[Array | float], Noise]) -> Noise:
    """Noise by its scale, which may follow a schedule; a step of one environment is E steps of the seed."""
    settings = cast("ScheduledConfig", config.exploration)
    if settings.schedule == "constant":
        return make(settings.sigma)
    rest = max(1, config.total_steps - config.algorithm.warmup_steps)
    steps = (settings.schedule_steps or rest) / config.env.num_envs
    return noise.scheduled(make(1.0), _SCALES[settings.schedule](settings, steps))


_SCALES: dict[str, Callable[[ScheduledConfig, float], noise.ScaleFn]] = {
    "linear": lambda settings, steps: noise.linear(settings.sigma, settings.sigma_end, steps),
    "exponential": lambda settings, steps: noise.exponential(settings.sigma, settings.sigma_end, steps),
    "inverse_episode": lambda settings, steps: noise.inverse_episode(settings.sigma),
}


def _mlps(
    config: Config, spec: EnvSpec, outputs: int = 1, actor_final: networks.Law | None = None
) -> tuple[Network, Network]:
    """Actor and critic; `actor_final` overrides how the actor's last layer is drawn."""
    algorithm = config.algorithm
    shape = networks.Shape(
        algorithm.hidden,
        algorithm.activation,
        algorithm.initializer,
        None if algorithm.final_scale is None else networks.uniform_law(algorithm.final_scale),
        config.precision,
        algorithm.normalization,
        algorithm.architecture,
    )
    sizes = prod(spec.obs_shape), spec.action_size
    actor = networks.mlp_actor(*sizes, shape._replace(final=actor_final or shape.final))
    of_critic = shape._replace(hidden=algorithm.critic_widths)
    return actor, networks.mlp_critic(*sizes, of_critic, action_layer=algorithm.action_layer, outputs=outputs)


def _normalizer(config: Config, spec: EnvSpec) -> Normalizer:
    return normalize.running(spec.obs_shape) if config.algorithm.normalize_observations else normalize.UNCHANGED


def _optimizers(config: Config) -> Params:
    """Adam for each network, over the critic steps of the run, and over the actor's, which are fewer."""
    algorithm, updates = config.algorithm, config.updates_owed(config.total_steps)
    rounds = updates // algorithm.critic_steps_per_round
    return Params(
        encoder=optax.set_to_zero(),
        actor=_adam(algorithm, algorithm.actor_learning_rate, algorithm.actor_weight_decay, rounds),
        critic=_adam(algorithm, algorithm.critic_learning_rate, algorithm.critic_weight_decay, updates),
    )


def _adam(config: LearnerConfig, rate: float, decay: float, steps: int) -> optax.GradientTransformation:
    """Adam with the gradient clipped by its global norm first, weight decay, and the rate's schedule over `steps`.

    Narrow networks are updated as one vector, which saves a tenth of an update at 64-64; wide ones leaf by leaf, as the
    copies would cost a twentieth at 256-256.
    """
    join = optax.flatten if config.narrow else lambda optimizer: optimizer
    clip = optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
    decayed = optax.add_decayed_weights(decay)
    scaled = optax.scale_by_learning_rate(_scheduled(config, rate, max(1, steps)))
    chain = {
        "none": (optax.scale_by_adam(), scaled),
        "l2": (decayed, optax.scale_by_adam(), scaled),
        "decoupled": (optax.scale_by_adam(), decayed, scaled),
    }[config.weight_decay]
    return join(optax.chain(clip, *chain))


def _scheduled(config: LearnerConfig, rate: float, steps: int) -> Any:
    """The rate, a number, or a function of the steps made so far."""
    if config.learning_rate_schedule == "constant":
        return rate
    share, end = _SCHEDULES[config.learning_rate_schedule], config.learning_rate_end
    return lambda count: rate * share(jnp.minimum(count.astype(jnp.float32) / steps, 1.0), end)


_SCHEDULES: dict[str, Callable[[Array, float], Array]] = {
    "linear": lambda done, end: 1.0 + (end - 1.0) * done,
    "cosine": lambda done, end: end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)),
    "exponential": lambda done, end: end**done,
}
