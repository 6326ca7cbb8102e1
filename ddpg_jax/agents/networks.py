"""Networks as small bundles of pure functions of one sample. The only module that imports flax.linen.

A critic returns `[Z]` outputs; `ensemble` turns one critic into M of them, `[M, Z]`, with parameters of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.agents.modules import Architecture, make_embedded, make_module, make_network, make_pair, make_trunk
from ddpg_jax.agents.slots import LearnAux, Network
from ddpg_jax.types import Array, Tree


def stateless(init: Callable[[Array], Tree], apply: Callable[..., Any]) -> Network:
    """A network without moments and hidden units, from `key -> params` and `(params, *inputs) -> output`."""
    return Network(
        init=init,
        moments=lambda: (),
        apply=lambda params, moments, *inputs: apply(params, *inputs),
        learn=lambda params, moments, *inputs: (apply(params, *inputs), LearnAux((), jnp.ones(1, bool))),
    )


def identity() -> Network:
    """The encoder of agents that see the state: no parameters, returns the observation."""
    return stateless(lambda key: (), lambda params, obs: obs)


def mlp_actor(obs_size: int, action_size: int, architecture: Architecture, penalty: float = 0.0) -> Network:
    """A deterministic policy, mu(s) = tanh(network(s)).

    Args:
      obs_size: O, size of the encoded observation `[O]`.
      action_size: A.
      architecture: of the network.
      penalty: as `weight` of `squashed`.

    Returns:
      A network `(obs [O]) -> action [A]` in [-1, 1].
    """
    return squashed(make_network(make_module(architecture, action_size), (obs_size,), lambda x: x), penalty)


def mlp_critic(
    obs_size: int, action_size: int, architecture: Architecture, *, action_layer: int = 0, outputs: int = 1
) -> Network:
    """An action-value network Q(s, a).

    Args:
      obs_size: O, size of the encoded observation `[O]`.
      action_size: A.
      architecture: of the network.
      action_layer: the hidden layer that the action enters: 0 with the observation, 1 the second (Lillicrap et al.).
      outputs: Z, 1 for a scalar critic.

    Returns:
      A network `(obs [O], action [A]) -> [Z]`.

    Raises:
      ValueError: `action_layer` is not a hidden layer.
    """
    if not 0 <= action_layer < len(architecture.hidden):
        raise ValueError(
            f"action_layer={action_layer} is not one of the {len(architecture.hidden)} hidden layers, from 0"
        )
    return make_network(make_module(architecture, outputs, action_layer), (obs_size, action_size), lambda x: x)


def trunk(size: int, width: int, architecture: Architecture) -> Network:
    """What stands between an encoder of pictures and a network: a layer, its normalisation, and tanh.

    Args:
      size: F, features of the encoder.
      width: of the layer.
      architecture: how the layer is drawn and multiplied.

    Returns:
      A network `(features [F]) -> [width]` in [-1, 1].

    References:
      Yarats et al., "Mastering visual continuous control", section 3 (arXiv:2107.09645).
    """
    return make_network(make_trunk(architecture, width), (size,), lambda x: x)


def mlp_with_embeddings(
    sizes: tuple[int, ...],
    embeddings: int,
    width: int,
    outputs: int,
    architecture: Architecture,
) -> Network:
    """A network that sees embeddings beside the inputs that they were made of.

    Args:
      sizes: of those inputs, an observation or an observation and an action.
      embeddings: numbers in the embeddings.
      width: of the linear layer that takes in those inputs.
      outputs: of the network.
      architecture: of the layers behind.

    Returns:
      A network `(*inputs, embeddings [embeddings]) -> [outputs]`.

    References:
      Fujimoto et al., "For SALE: state-action representation learning for deep reinforcement learning"
      (arXiv:2306.02451), figure 1.
    """
    return make_network(make_embedded(architecture, width, outputs), (*sizes, embeddings), lambda x: x)


def linear(inputs: int, outputs: int, architecture: Architecture) -> Network:
    """One layer, drawn and multiplied as the last of an architecture.

    Args:
      inputs: I.
      outputs: Z.
      architecture: its hidden layers are left out.

    Returns:
      A network `([I]) -> [Z]`.
    """
    return make_network(make_module(architecture._replace(hidden=()), outputs), (inputs,), lambda x: x)


def pair_embedding(sizes: tuple[int, int], width: int, outputs: int, architecture: Architecture) -> Network:
    """An embedding of a state's embedding and an action, which enters by an activated layer of its own.

    Args:
      sizes: of both.
      width: of that layer.
      outputs: Y.
      architecture: of the layers behind.

    Returns:
      A network `(state embedding [Z], action [A]) -> [Y]`.

    References:
      Fujimoto et al., "Towards general-purpose model-free reinforcement learning" (arXiv:2501.16142), the encoder.
    """
    return make_network(make_pair(architecture, width, outputs), sizes, lambda x: x)


def squashed(network: Network, weight: float) -> Network:
    """A network of which the tanh is taken, and which is held back, as it learns, from where that is flat.

    Args:
      network: `(*inputs) -> [A]`.
      weight: of the mean square of what it returns, in the actor's loss; 0: nothing is held back.

    Returns:
      A network `(*inputs) -> [A]` in [-1, 1].

    References:
      Fujimoto et al. (arXiv:2501.16142), the loss of the actor.
    """

    def apply(params: Tree, moments: Tree, *inputs: Array) -> Array:
        return jnp.tanh(network.apply(params, moments, *inputs))

    def learn(params: Tree, moments: Tree, *inputs: Array) -> tuple[Array, LearnAux]:
        output, aux = network.learn(params, moments, *inputs)
        return jnp.tanh(output), aux._replace(penalty=weight * jnp.mean(jnp.square(output)) if weight else ())

    return network._replace(apply=apply, learn=learn)


def ensemble(network: Network, size: int) -> Network:
    """M networks of one form, with independent parameters, on the same inputs.

    Args:
      network: `(*inputs) -> [Z]`.
      size: M, at least 1.

    Returns:
      A network `(*inputs) -> [M, Z]`; every leaf of its parameters, moments and traces has a leading `[M]`.
    """

    def init(key: Array) -> Tree:
        return jax.vmap(network.init)(jax.random.split(key, size))

    def moments() -> Tree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), network.moments())

    def apply(params: Tree, moments: Tree, *inputs: Array) -> Array:
        return jax.vmap(lambda p, m: network.apply(p, m, *inputs))(params, moments)

    def learn(params: Tree, moments: Tree, *inputs: Array) -> tuple[Array, LearnAux]:
        return jax.vmap(lambda p, m: network.learn(p, m, *inputs))(params, moments)

    return Network(init, moments, apply, learn)
