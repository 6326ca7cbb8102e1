"""The assembly for pictures: `policy_gradient` with convolutions in front of its networks, and shifted samples.

An agent is `from_pixels(...)` of what would make it by `policy_gradient(...)` from the features of an encoder. The
convolutions are shared, which the critics' loss alone teaches, or each network's own. The critics of an ensemble share
what stands in front of them. Where one sample is shifted several times (DrQ), slots are lifted over the copies:

    target      the mean of those of K successors
    loss        the sum of those of M observations
    actor       learns from the first of them
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents.networks import stateless
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.slots import ActionFn, AugmentFn, CriticHead, LearnAux, Network
from ddpg_jax.agents.targets import greedy
from ddpg_jax.types import Agent, Array, Params, Tree


class PixelSettings(NamedTuple):
    """What stands between pictures and the networks of an agent.

    Attributes:
      fronts: an encoder that actor and critics share, and what stands in front of each of them; none of them has
        moments.
      augment: of one transition; it may make several observations or successors, as a leading axis.
      axes: of what encoder, actor and critic see of one picture stack: more of them are copies.
      target_copies: K, successors made of one.
      online_copies: M, observations made of one.
    """

    fronts: Params
    augment: AugmentFn
    axes: Params
    target_copies: int = 1
    online_copies: int = 1


def from_pixels(
    settings: PixelSettings,
    *,
    networks: Params,
    head: CriticHead,
    next_action: ActionFn = greedy,
    **slots: Any,
) -> Agent:
    """Assembles an agent that sees pictures, of one seed.

    Args:
      settings: what stands in front of its networks.
      networks: as in `policy_gradient`; actor and critic see what stands in front of them. The encoder is replaced.
      head: as in `policy_gradient`, and so is `next_action`.
      next_action: what becomes of the action in the target.
      **slots: the others, as they are.

    References:
      Yarats et al., "Image augmentation is all you need" (arXiv:2004.13649) and "Mastering visual continuous control"
      (arXiv:2107.09645).
    """
    fronts = settings.fronts
    of_all = Params(fronts.encoder, behind(fronts.actor, networks.actor), behind(fronts.critic, networks.critic))
    head = head._replace(actor_critics=_behind_the_front(head.actor_critics))
    if settings.target_copies == settings.online_copies == 1:
        return policy_gradient(networks=of_all, head=head, next_action=next_action, augment=settings.augment, **slots)
    lifted = Params(*(over_copies(network, axes) for network, axes in zip(of_all, settings.axes, strict=True)))
    first: dict[str, Any] = {"reuse": _first_copy if settings.online_copies > 1 else _as_it_is}
    return policy_gradient(
        networks=lifted,
        head=_over_copies_of_outputs(head),
        next_action=_for_each_copy(next_action),
        augment=settings.augment,
        **slots | first,
    )


def in_sequence(first: Network, second: Network) -> Network:
    """Two networks without moments as one, `x -> second(first(x))`."""

    def init(key: Array) -> Tree:
        first_key, second_key = jax.random.split(key)
        return {"first": first.init(first_key), "second": second.init(second_key)}

    return stateless(init, lambda params, x: second.apply(params["second"], (), first.apply(params["first"], (), x)))


def behind(first: Network, second: Network) -> Network:
    """Two networks as one, `(x, *more) -> second(first(x), *more)`; the first has no moments.

    Parameters are `{"first": ..., "second": ...}`, and so are moments and traces, without the first.
    """

    def init(key: Array) -> Tree:
        first_key, second_key = jax.random.split(key)
        return {"first": first.init(first_key), "second": second.init(second_key)}

    def moments() -> Tree:
        return {"second": second.moments()}

    def apply(params: Tree, moments: Tree, x: Array, *more: Array) -> Array:
        seen = first.apply(params["first"], (), x)
        return second.apply(params["second"], moments["second"], seen, *more)

    def learn(params: Tree, moments: Tree, x: Array, *more: Array) -> tuple[Array, LearnAux]:
        seen = first.apply(params["first"], (), x)
        output, aux = second.learn(params["second"], moments["second"], seen, *more)
        return output, aux._replace(moments={"second": aux.moments})

    return Network(init, moments, apply, learn)


def over_copies(network: Network, axes: int) -> Network:
    """A network whose first input may have a leading axis of copies beside its own axes; so may have the others."""

    def lifted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(params: Tree, moments: Tree, x: Array, *more: Array) -> Any:
            if x.ndim == axes:
                return function(params, moments, x, *more)
            each = (0, *(0 if other.ndim > 1 else None for other in more))
            return jax.vmap(lambda *inputs: function(params, moments, *inputs), each)(x, *more)

        return call

    return network._replace(apply=lifted(network.apply), learn=lifted(network.learn))


def _behind_the_front(actor_critics: Callable[[Tree], Tree]) -> Callable[[Tree], Tree]:
    return lambda critics: critics | {"second": actor_critics(critics["second"])}


def _over_copies_of_outputs(head: CriticHead) -> CriticHead:
    """The head of outputs `[M, Z]`, or of those of several copies, `[copies, M, Z]`."""

    def target(reward: Array, discount: Array, outputs: Array, key: Array) -> Array:
        if outputs.ndim == 2:
            return head.target(reward, discount, outputs, key)
        return jnp.mean(jax.vmap(head.target, (None, None, 0, None))(reward, discount, outputs, key), 0)

    def loss(outputs: Array, y: Array) -> tuple[Array, Array]:
        if outputs.ndim == 2:
            return head.loss(outputs, y)
        losses, errors = jax.vmap(head.loss, (0, None))(outputs, y)
        return jnp.sum(losses), jnp.mean(errors)

    def value(outputs: Array) -> Array:
        return head.value(outputs) if outputs.ndim == 2 else jnp.mean(jax.vmap(head.value)(outputs))

    return CriticHead(target, loss, value, head.actor_critics)


def _first_copy(encoded: Array) -> Array:
    return encoded[0]


def _as_it_is(encoded: Array) -> Array:
    return encoded


def _for_each_copy(change: ActionFn) -> ActionFn:
    def each(action: Array, key: Array, step: Array) -> Array:
        if action.ndim == 1:
            return change(action, key, step)
        return jax.vmap(change, (0, 0, None))(action, jax.random.split(key, action.shape[0]), step)

    return each
