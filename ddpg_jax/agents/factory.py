"""The parts of an agent that do not depend on which algorithm it is: from a configuration to what fills the slots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import optax

from ddpg_jax.agents import augmentations, batch_blocks, encoders, modules, networks, noise, sphere
from ddpg_jax.agents import exploration as explorations
from ddpg_jax.agents import normalizers as normalize
from ddpg_jax.agents.encoders import PixelSettings, in_sequence, past
from ddpg_jax.agents.memory_networks import MemoryEncoder, memory_encoder
from ddpg_jax.agents.optimizers import Skippable, project_after, restrict_to, scale_part, skippable, skippable_adam
from ddpg_jax.agents.slots import ActionFn, Exploration, Network, Noise, Normalizer
from ddpg_jax.agents.targets import no_augmentation, scheduled_noise
from ddpg_jax.config.plugins import load
from ddpg_jax.envs.mixed import number_rows
from ddpg_jax.equations.embeddings import avg_l1_norm
from ddpg_jax.types import BATCH, PAIR, Array, EnvSpec, Params, Tree
from ddpg_jax.xla.tuning import tuning

if TYPE_CHECKING:
    from ddpg_jax.config.algorithms import DrQv2Config, MRQConfig, TD7Config
    from ddpg_jax.config.learner import LearnerConfig
    from ddpg_jax.config.memory import MemoryConfig
    from ddpg_jax.config.pixels import EncoderConfig
    from ddpg_jax.config.schema import Config
    from ddpg_jax.config.sections import (
        GaussianConfig,
        GaussianPerEnvConfig,
        OUConfig,
        ParameterConfig,
        ScheduledConfig,
    )


def make_exploration(config: Config, spec: EnvSpec) -> Exploration:
    """The exploration of a configuration, of one environment."""
    chosen, epsilon = _EXPLORATIONS[config.exploration.kind](config, spec.action_size), config.exploration.epsilon
    return chosen if epsilon is None else explorations.epsilon_uniform(chosen, epsilon)


def _none(config: Config, size: int) -> Exploration:
    return explorations.additive(noise.zero(size))


def _gaussian(config: Config, size: int) -> Exploration:
    longest = cast("GaussianConfig", config.exploration).hold
    hold = _as_it_is if longest is None else partial(noise.held, action_size=size, longest=longest)
    return explorations.additive(_of_scale(config, lambda sigma: hold(noise.gaussian(size, sigma))))


def _as_it_is(noise: Noise) -> Noise:
    return noise


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
    return noise.scheduled(make(1.0), _scale_fn(config, config.env.num_envs))


def _scale_fn(config: Config, steps_at_once: float) -> noise.ScaleFn:
    """The schedule of a scale, by steps of which each stands for so many of the seed's."""
    settings = cast("ScheduledConfig", config.exploration)
    rest = max(1, config.total_steps - config.algorithm.warmup_steps)
    return _SCALES[settings.schedule](settings, (settings.schedule_steps or rest) / steps_at_once)


_SCALES: dict[str, Callable[[ScheduledConfig, float], noise.ScaleFn]] = {
    "linear": lambda settings, steps: noise.linear(settings.sigma, settings.sigma_end, steps),
    "exponential": lambda settings, steps: noise.exponential(settings.sigma, settings.sigma_end, steps),
    "inverse_episode": lambda settings, steps: noise.inverse_episode(settings.sigma),
}


def make_networks(
    config: Config, spec: EnvSpec, outputs: int = 1, actor_final: modules.LayerInit | None = None
) -> tuple[Network, Network]:
    """Actor and critic; `actor_final` overrides how the actor's last layer is drawn, of our own networks.

    Raises:
      ConfigError: `algorithm.make_networks` names a function that is not there.
    """
    algorithm = config.algorithm
    if algorithm.memory is not None:  # they see what the encoders make of the history
        spec = _of_features(spec, make_encoders(config, spec)[0].features)
    elif algorithm.encoder is not None:  # or what they make of pictures
        features = algorithm.encoder.features or encoders.features(_picture_shape(spec), _layers(config))
        spec = _of_features(spec, features + spec.proprioception)
    if algorithm.make_networks is not None:
        return load("networks", algorithm.make_networks, "algorithm.make_networks")(config, spec, outputs)
    shape = _architecture(config)
    sizes = prod(spec.obs_shape), spec.action_size
    actor = networks.mlp_actor(*sizes, shape._replace(final=actor_final or shape.final), algorithm.action_penalty)
    of_critic = shape._replace(hidden=algorithm.critic_widths, batch_axes=_BATCH_AXES[algorithm.joint_batch])
    return actor, networks.mlp_critic(*sizes, of_critic, action_layer=algorithm.action_layer, outputs=outputs)


_BATCH_AXES = {False: (BATCH,), True: (BATCH, PAIR)}
"""What critics take the moments of a batch over, by whether current and next pairs are one."""


def _architecture(config: Config) -> modules.Architecture:
    """The actor's."""
    algorithm = config.algorithm
    return modules.Architecture(
        algorithm.hidden,
        algorithm.activation,
        algorithm.initializer,
        None if algorithm.final_scale is None else modules.uniform_init(algorithm.final_scale),
        config.precision,
        algorithm.normalization,
        algorithm.architecture,
    )


def make_embeddings(config: Config, spec: EnvSpec) -> tuple[Network, Network]:
    """What makes the embeddings of TD7, of a state, and of that embedding and an action."""
    it = cast("TD7Config", config.algorithm)
    shape = _architecture(config)._replace(hidden=it.encoder_hidden, activation=it.critic_activation, final=None)
    make = partial(modules.make_network, modules.make_module(shape, it.embedding_size))
    of_state = make((prod(spec.obs_shape),), avg_l1_norm)
    return of_state, make((it.embedding_size, spec.action_size), lambda x: x)


def make_embedded_networks(config: Config, spec: EnvSpec) -> tuple[Network, Network]:
    """Actor and critic of TD7, which see embeddings."""
    it, shape = cast("TD7Config", config.algorithm), _architecture(config)
    obs, action = prod(spec.obs_shape), spec.action_size
    of_critic = shape._replace(hidden=it.critic_widths, activation=it.critic_activation)
    actor = networks.mlp_with_embeddings((obs,), it.embedding_size, it.input_width, action, shape)
    critic = networks.mlp_with_embeddings((obs, action), 2 * it.embedding_size, it.input_width, 1, of_critic)
    return networks.squashed(actor, it.action_penalty), critic


def make_unrolled_embeddings(config: Config, spec: EnvSpec) -> tuple[Network, Network, Network]:
    """What makes the embeddings of MR.Q, of a state, and of that and an action, and the model that foretells."""
    it = cast("MRQConfig", config.algorithm)
    size, shape = it.embedding_size, _architecture(config)
    shape = shape._replace(hidden=it.encoder_hidden, activation=it.critic_activation, final=None)
    of_state = modules.make_network(modules.make_module(shape, size), (prod(spec.obs_shape),), _scaled(shape))
    pair = networks.pair_embedding((size, spec.action_size), it.action_embedding, size, shape)
    return of_state, pair, networks.linear(size, size + 1 + it.reward_bins, shape)


def _scaled(shape: modules.Architecture) -> Callable[[Array], Array]:
    """What becomes of the embedding of a state: it is brought to mean 0 and variance 1, and activated."""
    return lambda x: modules.ACTIVATIONS[shape.activation](jax.nn.standardize(x, epsilon=1e-5))


def make_networks_of_embeddings(config: Config, spec: EnvSpec) -> tuple[Network, Network]:
    """Actor and critic of MR.Q, which see embeddings alone."""
    it, shape = cast("MRQConfig", config.algorithm), _architecture(config)

    def make(shape: modules.Architecture, outputs: int) -> Network:
        return modules.make_network(modules.make_module(shape, outputs), (it.embedding_size,), lambda x: x)

    of_critic = shape._replace(hidden=it.critic_widths, activation=it.critic_activation)
    return networks.squashed(make(shape, spec.action_size), it.action_penalty), make(of_critic, 1)


def _of_features(spec: EnvSpec, features: int) -> EnvSpec:
    """What the networks behind an encoder must know of an environment."""
    return spec._replace(obs_shape=(features,), obs_dtype="float32", layout=(), stack=0, proprioception=0)


def _picture_shape(spec: EnvSpec) -> tuple[int, ...]:
    """Of what is seen, without the rows of numbers below it."""
    *stack, height, width, channels = spec.obs_shape
    return *stack, height - number_rows(spec.proprioception, (width, channels)), width, channels


def make_pixel_settings(config: Config, spec: EnvSpec) -> PixelSettings:
    """What stands between pictures and the networks, by `[algorithm.encoder]`, which is there.

    Raises:
      EnvironmentFault: the pictures are too small.
    """
    it, layers = cast("EncoderConfig", config.algorithm.encoder), _layers(config)
    shape, felt = _picture_shape(spec), spec.proprioception
    convolutions, size = encoders.pixel_encoder(shape, layers, felt), encoders.features(shape, layers)
    front = networks.trunk(size, it.features, _architecture(config)) if it.features else networks.identity()
    front = past(front, felt)
    axes = len(shape)
    alone = front if it.shared else in_sequence(convolutions, front)
    shift = augmentations.random_shift(
        it.shift, augmentations.SHIFTS[it.interpolation], it.target_copies, it.online_copies, felt
    )
    return PixelSettings(
        fronts=Params(convolutions if it.shared else networks.identity(), alone, alone),
        augment=shift if it.shift else no_augmentation,
        axes=Params(axes, 1 if it.shared else axes, 1 if it.shared else axes),
        target_copies=it.target_copies,
        online_copies=it.online_copies,
    )


def _layers(config: Config) -> encoders.Convolutions:
    it = cast("EncoderConfig", config.algorithm.encoder)
    layers = encoders.KINDS[it.kind](it.channels, it.kernel)
    return layers._replace(initializer=config.algorithm.initializer, precision=config.precision)


def make_encoders(config: Config, spec: EnvSpec) -> tuple[MemoryEncoder, MemoryEncoder]:
    """What remembers for the actor and for the critics of an agent with memory."""
    settings = cast("MemoryConfig", config.algorithm.memory)
    one = memory_encoder(prod(spec.obs_shape), spec.action_size, settings, config.precision)
    return one, one


def make_normalizer(config: Config, spec: EnvSpec) -> Normalizer:
    """How observations are normalised."""
    it = config.algorithm
    if not it.normalize_observations:
        return normalize.UNCHANGED
    plain = it.observation_moments == "plain"
    return normalize.running(spec.obs_shape, it.observation_epsilon, it.observation_clip, plain=plain)


def make_optimizers(config: Config) -> Params:
    """Adam for each network, over the critic steps of the run, and over the actor's, which are fewer."""
    algorithm, updates = config.algorithm, config.updates_owed(config.total_steps)
    encoder = algorithm.encoder
    rounds, flat = updates // algorithm.critic_steps_per_round, tuning(config).flat_optimizer

    def make(rate: float, decay: float, steps: int) -> Skippable:
        whole = _adam(algorithm, rate, decay, steps, flat)
        if algorithm.architecture in _PROJECTIONS and algorithm.project_weights:
            whole = project_after(whole, _PROJECTIONS[algorithm.architecture])
        own = None if algorithm.memory is None else algorithm.memory.learning_rate
        return whole if own is None else scale_part(whole, "memory", own / rate)

    rate, decay = algorithm.critic_learning_rate, algorithm.critic_weight_decay
    own = rate if encoder is None or encoder.learning_rate is None else encoder.learning_rate
    shared = encoder is not None and encoder.shared
    return Params(
        encoder=make(own, decay, updates) if shared else optax.set_to_zero(),
        actor=make(algorithm.actor_learning_rate, algorithm.actor_weight_decay, rounds),
        critic=make(rate, decay, updates),
    )


_PROJECTIONS: dict[str, Callable[[Tree], Tree]] = {"simba_v2": sphere.project, "flash": batch_blocks.project}


def make_embedding_optimizer(config: Config, decay: float = 0.0) -> Skippable:
    """Adam for the learned part of the encoder of TD7 and MR.Q."""
    it, steps = cast("TD7Config | MRQConfig", config.algorithm), config.updates_owed(config.total_steps)
    return restrict_to(_adam(it, it.encoder_learning_rate, decay, steps, tuning(config).flat_optimizer), "learned")


def make_loss_noise(config: Config) -> ActionFn:
    """The noise of `[exploration]`, which is Gaussian, in the losses of DrQ-v2, by the number of the update."""
    settings, algorithm = cast("ScheduledConfig", config.exploration), cast("DrQv2Config", config.algorithm)
    begun = max(0, algorithm.learning_begins - algorithm.warmup_steps)
    scale = _scale_fn(config, 1.0) if settings.schedule != "constant" else None

    def sigma(update: Array) -> Array | float:
        step = begun + (update.astype(jnp.float32) / algorithm.updates_per_step).astype(jnp.int32)
        return settings.sigma if scale is None else scale(step, jnp.int32(0))

    return scheduled_noise(sigma, algorithm.noise_clip)


def _adam(config: LearnerConfig, rate: float, decay: float, steps: int, flat: bool) -> Skippable:
    """Adam with the gradient clipped by its global norm first, weight decay, and the rate's schedule over `steps`.

    Args:
      config: the section `[algorithm]`.
      rate: learning rate, `[]`; it may be traced.
      decay: coefficient of the weight decay, `[]`; likewise.
      steps: over which the rate's schedule goes.
      flat: whether all parameters are updated as one vector; see `Tuning.flat_optimizer`.
    """
    join = optax.flatten if flat else lambda optimizer: optimizer
    clip = optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
    decayed = optax.add_decayed_weights(decay)
    scaled = skippable(optax.scale_by_learning_rate(_make_schedule(config, rate, max(1, steps))))
    chain = {
        "none": (skippable_adam(), scaled),
        "l2": (decayed, skippable_adam(), scaled),
        "decoupled": (skippable_adam(), decayed, scaled),
    }[config.weight_decay]
    whole = join(optax.chain(clip, *chain))
    return Skippable(whole.init, whole.update)  # as each of its parts that has a state is


def _make_schedule(config: LearnerConfig, rate: float, steps: int) -> Any:
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
