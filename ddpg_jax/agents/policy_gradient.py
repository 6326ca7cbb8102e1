"""The assembly: deterministic policy gradients out of small functions, for one seed.

`policy_gradient` joins slots to an `Agent`. It never asks which algorithm it runs, and it never sees gamma, `done` or
n, only the `discount` of a transition. The batch axis enters here, by `vmap` over functions of one sample; the seed
axis enters outside, by `vmap` over the agent.

The nesting of an update call, d = policy_delay:

    scan over rounds [U/d]:
        scan over batches [d]:
            critic step                      one gradient step of critic and encoder
        actor step                           on the last batch of the round, with the new critic
        targets follow
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from ddpg_jax.equations.targets import soft_update
from ddpg_jax.rng import stream_key
from ddpg_jax.types import (
    ActFn,
    Agent,
    Array,
    Batch,
    CriticHead,
    Metrics,
    Network,
    Noise,
    Params,
    TrainState,
    Transition,
    Tree,
)

ActionFn: TypeAlias = Callable[[Array, Array, Array], Array]
"""`(action [A], key, step []) -> action [A]`: what becomes of mu(s) inside a loss. The key is consumed."""

SelectFn: TypeAlias = Callable[[Params, Params], Params]
"""`(params, target_params) -> Params`: whose actor and encoder choose the next action."""

FollowFn: TypeAlias = Callable[[Params, Params, Array], Params]
"""`(params, target_params, step) -> target_params`."""

AugmentFn: TypeAlias = Callable[[Transition, Array], Transition]
"""`(transition, key) -> transition`, for one sample. The key is consumed."""

SATURATED = 0.99
"""An action component counts as saturated where its absolute value exceeds this."""


def greedy(action: Array, key: Array, step: Array) -> Array:
    """The action of the policy as it is."""
    return action


def smoothed(sigma: Array | float, clip: Array | float) -> ActionFn:
    """Target policy smoothing, a ← clip(a + clip(sigma·N(0, 1), ±clip), ±1).

    Both are in units of half the action range, `[]`. All critics judge the same action: noise is drawn once for a
    transition.

    References:
      Fujimoto et al., "Addressing function approximation error in actor-critic methods", eq. 14 (arXiv:1802.09477).
    """

    def smooth(action: Array, key: Array, step: Array) -> Array:
        noise = jnp.clip(sigma * jax.random.normal(key, action.shape), -clip, clip)
        return jnp.clip(action + noise, -1.0, 1.0)

    return smooth


def with_target(params: Params, target_params: Params) -> Params:
    """The target actor chooses the next action (DDPG, TD3)."""
    return target_params


def unchanged(transition: Transition, key: Array) -> Transition:
    """No augmentation."""
    return transition


def polyak(tau: Array | float) -> FollowFn:
    """Targets follow by `soft_update` after every round."""
    return lambda params, target_params, step: soft_update(params, target_params, tau)


def policy_gradient(
    *,
    networks: Params,
    head: CriticHead,
    noise: Noise,
    optimizers: Params,
    follow: FollowFn,
    next_policy: SelectFn = with_target,
    next_action: ActionFn = greedy,
    actor_action: ActionFn = greedy,
    augment: AugmentFn = unchanged,
    policy_delay: int = 1,
) -> Agent:
    """Assembles an agent of one seed.

    Args:
      networks: encoder `(params, obs [*O]) -> h`, actor `(params, h) -> action [A]` in [-1, 1], critic
        `(params, h, action [A]) -> [M, Z]`.
      head: what the critics' outputs mean.
      noise: exploration noise of one environment.
      optimizers: an `optax.GradientTransformation` for each network.
      follow: how the targets follow.
      next_policy: whose actor and encoder choose the action in the target.
      next_action: what becomes of that action (target smoothing).
      actor_action: what becomes of the action in the actor's loss.
      augment: augmentation of one transition.
      policy_delay: critic steps for one step of actor and targets; U is a multiple of it.

    Returns:
      The agent.

    References:
      Silver et al., "Deterministic policy gradient algorithms" (2014), eq. 9; Lillicrap et al., Algorithm 1
      (arXiv:1509.02971); Fujimoto et al., Algorithm 1 (arXiv:1802.09477).
    """

    def init(run_key: Array) -> TrainState:
        params = Params(*(net.init(stream_key(run_key, f"init/{name}")) for name, net in _named(networks)))
        opt_state = Params(*(opt.init(p) for opt, p in zip(optimizers, params, strict=True)))
        return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), opt_state)

    def init_act(num_envs: int) -> Tree:
        return jax.vmap(lambda _: noise.init())(jnp.arange(num_envs))

    def mu(params: Params, obs: Array) -> Array:
        return networks.actor.apply(params.actor, networks.encoder.apply(params.encoder, obs))

    def q(params: Params, obs: Array, action: Array) -> Array:
        return networks.critic.apply(params.critic, networks.encoder.apply(params.encoder, obs), action)

    def critic_loss(
        params: Params, target: Params, data: Transition, key: Array, head_key: Array, step: Array
    ) -> tuple[Array, ...]:
        """Loss, temporal-difference error and value of one transition, each `[]`."""
        a_t = next_action(mu(next_policy(params, target), data.next_obs), key, step)
        y = head.target(data.reward, data.discount, q(target, data.next_obs, a_t), head_key)
        outputs = q(params, data.obs, data.action)
        return *head.loss(outputs, jax.lax.stop_gradient(y)), head.value(outputs)

    def actor_loss(params: Params, data: Transition, key: Array, step: Array) -> tuple[Array, Array]:
        """Minus the value of the policy's action, and that action `[A]`, for one transition."""
        action = mu(params, data.obs)
        return -head.value(q(params, data.obs, actor_action(action, key, step))), action

    def critic_step(state: TrainState, batch: Batch, run_key: Array) -> tuple[TrainState, tuple[Metrics, Array]]:
        keys = jax.random.split(stream_key(run_key, "critic", state.step), batch.weight.shape)
        head_key = stream_key(run_key, "head", state.step)

        def loss(learned: tuple[Tree, Tree]) -> tuple[Array, tuple[Array, Array]]:
            params = state.params._replace(encoder=learned[0], critic=learned[1])
            losses, td_error, values = jax.vmap(critic_loss, (None, None, 0, 0, None, None))(
                params, state.target_params, batch.data, keys, head_key, state.step
            )
            return jnp.mean(batch.weight * losses), (td_error, values)

        (value, (td_error, values)), (d_encoder, d_critic) = jax.value_and_grad(loss, has_aux=True)(
            (state.params.encoder, state.params.critic)
        )
        encoder, encoder_opt = _descend(optimizers.encoder, d_encoder, state.opt_state.encoder, state.params.encoder)
        critic, critic_opt = _descend(optimizers.critic, d_critic, state.opt_state.critic, state.params.critic)
        state = state._replace(
            step=state.step + 1,
            params=state.params._replace(encoder=encoder, critic=critic),
            opt_state=state.opt_state._replace(encoder=encoder_opt, critic=critic_opt),
        )
        metrics = {
            "critic_loss": value,
            "critic_grad_norm": _norm(d_critic),
            "mean_q": jnp.mean(values),
            "max_q": jnp.max(values),
        }
        return state, (metrics, td_error)

    def actor_step(state: TrainState, data: Transition, run_key: Array) -> tuple[TrainState, Metrics]:
        keys = jax.random.split(stream_key(run_key, "actor", state.step), data.reward.shape)

        def loss(actor: Tree) -> tuple[Array, Array]:
            losses, actions = jax.vmap(actor_loss, (None, 0, 0, None))(
                state.params._replace(actor=actor), data, keys, state.step
            )
            return jnp.mean(losses), actions

        (value, actions), d_actor = jax.value_and_grad(loss, has_aux=True)(state.params.actor)
        actor, actor_opt = _descend(optimizers.actor, d_actor, state.opt_state.actor, state.params.actor)
        params = state.params._replace(actor=actor)
        state = state._replace(
            params=params,
            target_params=follow(params, state.target_params, state.step),
            opt_state=state.opt_state._replace(actor=actor_opt),
        )
        metrics = {
            "actor_loss": value,
            "actor_grad_norm": _norm(d_actor),
            "saturated": jnp.mean(jnp.abs(actions) > SATURATED, dtype=jnp.float32),
        }
        return state, metrics

    def augmented(batch: Batch, run_key: Array, step: Array) -> Batch:
        keys = jax.random.split(stream_key(run_key, "augment", step), batch.weight.shape)
        return batch._replace(data=jax.vmap(augment)(batch.data, keys))

    def update(state: TrainState, batches: Batch, run_key: Array) -> tuple[TrainState, Metrics, Array]:
        def one(state: TrainState, batch: Batch) -> tuple[TrainState, tuple[Metrics, Array]]:
            return critic_step(state, augmented(batch, run_key, state.step), run_key)

        def one_round(state: TrainState, batches: Batch) -> tuple[TrainState, tuple[Metrics, Array]]:
            last = augmented(jax.tree.map(lambda x: x[-1], batches), run_key, state.step + policy_delay - 1)
            state, (critic_metrics, td_error) = jax.lax.scan(one, state, batches)
            state, actor_metrics = actor_step(state, last.data, run_key)
            repeated = {name: jnp.full(policy_delay, value) for name, value in actor_metrics.items()}
            return state, (critic_metrics | repeated, td_error)

        rounds = jax.tree.map(lambda x: x.reshape(-1, policy_delay, *x.shape[1:]), batches)
        state, (metrics, td_error) = jax.lax.scan(one_round, state, rounds)
        return state, {name: m.reshape(-1) for name, m in metrics.items()}, td_error.reshape(batches.weight.shape)

    def policy(state: TrainState, obs: Array) -> Array:
        return mu(state.params, obs)

    def value(state: TrainState, obs: Array) -> Array:
        return head.value(q(state.params, obs, mu(state.params, obs)))

    return Agent(init, init_act, _explorer(policy, noise), policy, update, value)


def _explorer(policy: Callable[[TrainState, Array], Array], noise: Noise) -> ActFn:
    """Acts in the environments of a seed, each with its own noise, and keeps the sum inside [-1, 1]."""

    def act(state: TrainState, act_state: Tree, obs: Array, first: Array, keys: Array) -> tuple[Array, Tree]:
        noises, act_state = jax.vmap(noise.sample)(act_state, keys, first)
        return jnp.clip(jax.vmap(policy, (None, 0))(state, obs) + noises, -1.0, 1.0), act_state

    return act


def _norm(gradient: Tree) -> Array:
    """The global norm; as one vector, which the flattened optimiser needs anyway, it is one kernel instead of many."""
    return jnp.linalg.norm(ravel_pytree(gradient)[0])


def _named(networks: Params) -> list[tuple[str, Network]]:
    return list(networks._asdict().items())


def _descend(
    optimizer: optax.GradientTransformation, gradient: Tree, opt_state: Tree, params: Tree
) -> tuple[Tree, Tree]:
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its int32 counter
        updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
