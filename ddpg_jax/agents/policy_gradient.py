"""The assembly: deterministic policy gradients out of small functions, for one seed.

`policy_gradient` joins slots to an `Agent`. It never asks which algorithm it runs, and it never sees gamma, `done` or
n, only the `discount` of a transition. The batch axis enters here, by `vmap` over functions of one sample; the seed
axis enters outside, by `vmap` over the agent.

The nesting of an update call, d = policy_delay:

    scan over rounds [U/d]:
        scan over batches [d]:
            critic step                      one gradient step of critic and encoder, which may learn more beside
            targets follow                   where `update_target_critic` says so
        actor step                           on the last batch of the round, with the new critic
        targets follow                       and whatever else `after_round` does

A step is rejected where its loss, the norm of its gradient or a moment of the batch is not finite: all stays as it was,
and only the random counter goes on. Where the critic's step on a batch is rejected, the actor makes none on it. After
`max_rejected` in a row a seed is frozen: nothing is applied to it any more. All this is selection inside the program,
so a seed that diverges takes part in every call and changes no bit of another.

The components of a step are not looked at, which would cost half an update (docs/decisions.md, 5). So an optimiser
must turn a gradient of finite norm into a finite step, as those of `factory` do while their own numbers are finite:
`hyperparams` are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpg_jax.agents import normalizers as normalize
from ddpg_jax.agents.diagnostics import all_finite, dead_fraction, relative_distance, zero_if_overflowing
from ddpg_jax.agents.exploration import explorer
from ddpg_jax.agents.optimizers import Skippable, select, skippable
from ddpg_jax.agents.slots import (
    OF_ONE_BATCH,
    ActionFn,
    AugmentFn,
    AuxiliaryFn,
    CriticHead,
    Exploration,
    LearnAux,
    Normalizer,
    Pair,
    Pairing,
    SelectFn,
    StateFn,
    TargetRange,
    TargetUpdateFn,
)
from ddpg_jax.agents.targets import (
    SEPARATE,
    UNBOUNDED,
    greedy,
    keep_targets,
    no_augmentation,
    no_auxiliary,
    unchanged,
    with_target,
)
from ddpg_jax.rng import stream_key
from ddpg_jax.types import BATCH, Agent, Array, Batch, Metrics, Params, Stats, TrainState, Transition, Tree
from ddpg_jax.xla.norm import global_norm

SATURATED = 0.99
"""An action component counts as saturated where its absolute value exceeds this."""


def policy_gradient(
    *,
    networks: Params,
    head: CriticHead,
    exploration: Exploration,
    optimizers: Params,
    update_targets: TargetUpdateFn = keep_targets,
    update_target_critic: TargetUpdateFn = keep_targets,
    normalizer: Normalizer = normalize.UNCHANGED,
    next_policy: SelectFn = with_target,
    next_critic: SelectFn = with_target,
    next_action: ActionFn = greedy,
    actor_action: ActionFn = greedy,
    pairing: Pairing = SEPARATE,
    target_range: TargetRange = UNBOUNDED,
    auxiliary: AuxiliaryFn = no_auxiliary,
    after_round: StateFn = unchanged,
    augment: AugmentFn = no_augmentation,
    reuse: Callable[[Tree], Tree] | None = None,
    policy_delay: int = 1,
    max_rejected: int = 10,
    hyperparams: tuple[Any, ...] = (),
) -> Agent:
    """Assembles an agent of one seed.

    Args:
      networks: encoder `obs [*O] -> h`, actor `h -> action [A]` in [-1, 1], critic `(h, action [A]) -> [M, Z]`.
      head: what the critics' outputs mean.
      exploration: of one environment.
      optimizers: an `optax.GradientTransformation` for each network; fastest where it is `Skippable`.
      update_targets: how the targets follow after a round.
      update_target_critic: how they follow after each critic step.
      normalizer: of the observations.
      next_policy: whose actor and encoder choose the action in the target.
      next_critic: whose critics and encoder judge it.
      next_action: what becomes of that action (target smoothing).
      actor_action: what becomes of the action in the actor's loss.
      pairing: how critics judge current and next pairs, and the actor's action, in the losses.
      target_range: what bounds the values in the target, and their units.
      auxiliary: what the encoder learns beside the critics' loss.
      after_round: what else becomes of the learner after an actor step that was applied.
      augment: augmentation of one transition.
      reuse: what the actor learns from, of what the encoder made of the observation in the critics' step, before it
        was changed by that; None: the encoder is asked again, afterwards.
      policy_delay: critic steps for one step of actor and targets; U is a multiple of it.
      max_rejected: steps of critics, or of the actor, in a row that are not finite before a seed is frozen.
      hyperparams: of optimisers and targets, `[]`, which may be traced; where one is not finite, no step is applied.

    Returns:
      The agent.

    References:
      Silver et al., "Deterministic policy gradient algorithms" (2014), eq. 9; Lillicrap et al., Algorithm 1
      (arXiv:1509.02971); Fujimoto et al., Algorithm 1 (arXiv:1802.09477).
    """
    optimizers = Params(*map(skippable, optimizers))

    def init(run_key: Array) -> TrainState:
        params = Params(*(net.init(stream_key(run_key, f"init/{name}")) for name, net in networks._asdict().items()))
        opt_state = Params(*(opt.init(p) for opt, p in zip(optimizers, params, strict=True)))
        stats = Stats(normalizer.init(), Params(*(net.moments() for net in networks)), targets=target_range.init())
        targets, none = jax.tree.map(jnp.copy, params), jnp.zeros(2, jnp.int32)
        return TrainState(jnp.zeros((), jnp.int32), params, targets, opt_state, stats, none)

    def observe(state: TrainState, obs: Array) -> TrainState:
        return state._replace(stats=state.stats._replace(obs=normalizer.observe(state.stats.obs, obs)))

    def reset(state: TrainState, run_key: Array) -> TrainState:
        new = init(stream_key(run_key, "reset networks", state.step))
        new = new._replace(step=state.step, stats=new.stats._replace(obs=state.stats.obs))
        return select(is_frozen(state, max_rejected), state, new)

    def accept_step(
        state: TrainState, which: int, sizes: tuple[Array, ...], attempted: Array | bool = True
    ) -> tuple[Array, Array]:
        """Whether a step is applied: it is finite, tried, and the seed is not frozen; and the rejections in a row."""
        finite = all_finite(*sizes, *hyperparams)
        attempted = attempted & ~is_frozen(state, max_rejected)
        counted = jnp.where(finite, jnp.zeros_like(state.rejected), state.rejected + 1)
        return finite & attempted, jnp.where(attempted & (np.arange(2) == which), counted, state.rejected)

    def init_act(num_envs: int) -> Tree:
        return jax.vmap(lambda _: exploration.init())(jnp.arange(num_envs))

    def encode(params: Params, stats: Stats, obs: Array) -> Array:
        return networks.encoder.apply(params.encoder, stats.networks.encoder, normalizer.apply(stats.obs, obs))

    def normalize_ends(stats: Stats, data: Transition) -> Transition:
        obs, next_obs = (normalizer.apply(stats.obs, each) for each in (data.obs, data.next_obs))
        return data._replace(obs=obs, next_obs=next_obs)

    def mu(params: Params, stats: Stats, encoded: Tree) -> tuple[Array, LearnAux]:
        return networks.actor.learn(params.actor, stats.networks.actor, encoded)

    def q(params: Params, stats: Stats, pair: Pair, other: Callable[[], Pair]) -> tuple[Array, LearnAux]:
        return pairing.in_critic_loss(networks.critic, params.critic, stats.networks.critic, pair, other)

    def actor_critics(params: Params, stats: Stats) -> tuple[Tree, Tree]:
        """Parameters and moments of those critics only that the actor ascends."""
        return head.actor_critics(params.critic), head.actor_critics(stats.networks.critic)

    def critic_loss(
        params: Params, target: Params, stats: Stats, data: Transition, key: Array, head_key: Array, step: Array
    ) -> tuple[Array, Array, Array, LearnAux, _Kept]:
        """Loss, error and value of one transition, each `[]`, the critics' trace, and what is kept beside."""
        chooser, judge = next_policy(params, target), next_critic(params, target)
        a_t = next_action(mu(chooser, stats, encode(chooser, stats, data.next_obs))[0], key, step)
        next_pair = encode(judge, stats, data.next_obs), a_t
        next_outputs, _ = q(judge, stats, next_pair, lambda: (encode(judge, stats, data.obs), data.action))
        reward = target_range.reward(stats.targets, data.reward)
        y = head.target(reward, data.discount, target_range.clip(stats.targets, next_outputs), head_key)
        encoded = encode(params, stats, data.obs)
        outputs, aux = q(params, stats, (encoded, data.action), lambda: (encode(params, stats, data.next_obs), a_t))
        beside = auxiliary(params.encoder, normalize_ends(stats, data))
        kept = _Kept(y, beside, () if reuse is None else reuse(encoded))
        return *head.loss(outputs, jax.lax.stop_gradient(y)), head.value(outputs), aux, kept

    def actor_loss(
        params: Params, stats: Stats, obs: Array, kept: Tree, key: Array, step: Array
    ) -> tuple[Array, Array, LearnAux]:
        """Minus the value of the policy's action, that action `[A]`, and the actor's trace, for one transition."""
        encoded = encode(params, stats, obs) if reuse is None else kept
        action, aux = mu(params, stats, encoded)
        pair = encoded, actor_action(action, key, step)
        outputs = pairing.in_actor_loss(networks.critic, *actor_critics(params, stats), pair)
        return sum(jax.tree.leaves(aux.penalty), start=-head.value(outputs)), action, aux

    def critic_step(state: TrainState, batch: Batch, run_key: Array) -> tuple[TrainState, tuple[Metrics, Array, Tree]]:
        keys = jax.random.split(stream_key(run_key, "critic", state.step), batch.weight.shape)
        head_key = stream_key(run_key, "head", state.step)

        def loss(learned: tuple[Tree, Tree]) -> tuple[Array, tuple[Array, Array, Array, LearnAux, _Kept]]:
            params, axes = state.params._replace(encoder=learned[0], critic=learned[1]), (0, 0, 0, OF_ONE_BATCH, 0)
            each = jax.vmap(critic_loss, (None, None, None, 0, 0, None, None), axes, axis_name=BATCH)
            losses, td_error, values, aux, kept = each(
                params, state.target_params, state.stats, batch.data, keys, head_key, state.step
            )
            value = jnp.mean(batch.weight * losses)
            return sum(map(jnp.mean, kept.losses.values()), start=value), (value, td_error, values, aux, kept)

        (total, (value, td_error, values, aux, kept)), (d_encoder, d_critic) = jax.value_and_grad(loss, has_aux=True)(
            (state.params.encoder, state.params.critic)
        )
        norm = global_norm(d_critic)
        accepted, rejected = accept_step(
            state, _CRITIC, (total, norm, global_norm(d_encoder), global_norm(aux.moments))
        )
        old, old_opt = state.params, state.opt_state
        encoder, encoder_opt = _descend(optimizers.encoder, d_encoder, old_opt.encoder, old.encoder, accepted)
        critic, critic_opt = _descend(optimizers.critic, d_critic, old_opt.critic, old.critic, accepted)
        params = old._replace(encoder=encoder, critic=critic)
        targets = target_range.observe(state.stats.targets, kept.y)
        new = state._replace(
            params=params,
            target_params=update_target_critic(params, state.target_params, state.step + 1),
            stats=_replace_moments(state.stats, critic=aux.moments)._replace(targets=targets),
        )
        metrics = {
            "critic_loss": value,
            "critic_grad_norm": norm,
            "mean_q": jnp.mean(values),
            "max_q": jnp.max(values),
        }
        opt_state = old_opt._replace(encoder=encoder_opt, critic=critic_opt)
        state = select(accepted, new, state)._replace(step=state.step + 1, opt_state=opt_state, rejected=rejected)
        metrics |= jax.tree.map(jnp.mean, kept.losses)
        return state, (metrics | {"rejected": ~accepted}, td_error, kept.reused)

    def actor_step(state: TrainState, data: Transition, kept: Tree, run_key: Array) -> tuple[TrainState, Metrics]:
        keys = jax.random.split(stream_key(run_key, "actor", state.step), data.reward.shape[:1])

        def loss(actor: Tree) -> tuple[Array, tuple[Array, LearnAux]]:
            params = state.params._replace(actor=actor)
            each = jax.vmap(actor_loss, (None, None, 0, 0, 0, None), (0, 0, OF_ONE_BATCH), axis_name=BATCH)
            losses, actions, aux = each(params, state.stats, data.obs, kept, keys, state.step)
            return jnp.mean(losses), (actions, aux)

        (value, (actions, aux)), d_actor = jax.value_and_grad(loss, has_aux=True)(state.params.actor)
        norm = global_norm(d_actor)
        of_this, attempted = (value, norm, global_norm(aux.moments)), state.rejected[_CRITIC] == 0
        accepted, rejected = accept_step(state, _ACTOR, of_this, attempted)
        actor, actor_opt = _descend(optimizers.actor, d_actor, state.opt_state.actor, state.params.actor, accepted)
        params = state.params._replace(actor=actor)
        new = after_round(
            state._replace(
                params=params,
                target_params=update_targets(params, state.target_params, state.step),
                stats=_replace_moments(state.stats, actor=aux.moments),
            )
        )
        metrics = {
            "actor_loss": value,
            "actor_grad_norm": norm,
            "saturated": jnp.mean(jnp.abs(actions) > SATURATED, dtype=jnp.float32),
        }
        opt_state = state.opt_state._replace(actor=actor_opt)
        state = select(accepted, new, state)._replace(opt_state=opt_state, rejected=rejected)
        return state, metrics | {"rejected": ~accepted}

    def augment_batch(batch: Batch, run_key: Array, step: Array) -> Batch:
        keys = jax.random.split(stream_key(run_key, "augment", step), batch.weight.shape)
        return batch._replace(data=jax.vmap(augment)(batch.data, keys))

    def update(state: TrainState, batches: Batch, run_key: Array) -> tuple[TrainState, Metrics, Array]:
        def one(state: TrainState, batch: Batch) -> tuple[TrainState, tuple[Metrics, Array, Tree]]:
            return critic_step(state, augment_batch(batch, run_key, state.step), run_key)

        def one_round(state: TrainState, batches: Batch) -> tuple[TrainState, tuple[Metrics, Array]]:
            last = augment_batch(jax.tree.map(lambda x: x[-1], batches), run_key, state.step + policy_delay - 1)
            state, (critic_metrics, td_error, kept) = jax.lax.scan(one, state, batches)
            state, actor_metrics = actor_step(state, last.data, jax.tree.map(lambda x: x[-1], kept), run_key)
            repeated = {name: jnp.full(policy_delay, value) for name, value in actor_metrics.items()}
            rejected = critic_metrics["rejected"] | repeated["rejected"]
            return state, (critic_metrics | repeated | {"rejected": rejected}, td_error)

        rounds = jax.tree.map(lambda x: x.reshape(-1, policy_delay, *x.shape[1:]), batches)
        state, (metrics, td_error) = jax.lax.scan(one_round, state, rounds)
        rejected = metrics["rejected"].reshape(-1)
        counted = {name: jnp.where(rejected, 0.0, m.reshape(-1)) for name, m in metrics.items() if name != "rejected"}
        td_error = zero_if_overflowing(td_error.reshape(batches.weight.shape))
        return state, counted | {"rejected": rejected.astype(jnp.float32)}, td_error

    def diagnose(state: TrainState, batch: Batch) -> Metrics:
        def traces(data: Transition) -> tuple[LearnAux, LearnAux]:
            pair = encode(state.params, state.stats, data.obs), data.action
            return (
                q(state.params, state.stats, pair, lambda: pair)[1],
                mu(state.params, state.stats, encode(state.params, state.stats, data.obs))[1],
            )

        of_critic, of_actor = jax.vmap(traces, out_axes=(OF_ONE_BATCH, OF_ONE_BATCH), axis_name=BATCH)(batch.data)
        return {
            "critic_dead": dead_fraction(of_critic),
            "actor_dead": dead_fraction(of_actor),
            "target_distance": relative_distance(state.params.critic, state.target_params.critic),
        }

    def policy(state: TrainState, obs: Array) -> Array:
        encoded = encode(state.params, state.stats, obs)
        return networks.actor.apply(state.params.actor, state.stats.networks.actor, encoded)

    def value(state: TrainState, obs: Array) -> Array:
        encoded, action = encode(state.params, state.stats, obs), policy(state, obs)
        return head.value(networks.critic.apply(*actor_critics(state.params, state.stats), encoded, action))

    return Agent(init, observe, init_act, explorer(policy, exploration), policy, update, reset, value, diagnose)


def is_frozen(state: TrainState, max_rejected: int) -> Array:
    """Whether nothing is applied to a seed any more, `[]`; of several seeds, `[S]`."""
    return jnp.maximum(state.rejected[..., _CRITIC], state.rejected[..., _ACTOR]) >= max_rejected


class _Kept(NamedTuple):
    """What a critic step keeps of one transition: its target, what the encoder learns beside, what the actor reuses."""

    y: Array
    losses: dict[str, Array]
    reused: Tree


_CRITIC, _ACTOR = 0, 1  # of `TrainState.rejected`


def _replace_moments(stats: Stats, **moments: Tree) -> Stats:
    return stats._replace(networks=stats.networks._replace(**moments))


def _descend(optimizer: Skippable, gradient: Tree, opt_state: Tree, params: Tree, accepted: Array) -> tuple[Tree, Tree]:
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its int32 counter
        updates, opt_state = optimizer.update(gradient, opt_state, params, accept=accepted)
    return optax.apply_updates(params, updates), opt_state
