"""Networks that remember: a recurrent encoder, and an actor or critic on top of it, for one sample.

At a step the cell sees embeddings of the observation and of the action and reward before; the body sees what the cell
tells, and beside it an embedding of the observation alone, which no memory stands before. Actor and critic have an
encoder each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.agents.cells import CELLS, PRODUCTS, forget
from ddpg_jax.agents.modules import symmetric_uniform
from ddpg_jax.agents.slots import LearnAux, Network
from ddpg_jax.types import Array, Recalled, Seen, Tree, Window


class MemorySettings(Protocol):
    """What a `MemoryEncoder` is made of; `[algorithm.memory]` is one."""

    @property
    def cell(self) -> str:
        """How it remembers, a name in `CELLS`."""
        ...

    @property
    def hidden(self) -> int:
        """H, size of what the cell tells."""
        ...

    @property
    def obs_embedding(self) -> int:
        """Width of each of the two embeddings of the observation."""
        ...

    @property
    def action_embedding(self) -> int:
        """Of that of the action before; 0: the cell does not see it."""
        ...

    @property
    def reward_embedding(self) -> int:
        """Likewise of the reward before."""
        ...


class MemoryEncoder(NamedTuple):
    """What a step looks like to one who remembers, as pure functions of one sample.

    Attributes:
      init: `key -> params`.
      features: F, size of what the body sees.
      carry_size: K, size of a flat carry.
      carry: `() -> carry`, before the first step.
      flatten: `carry -> [K]`.
      unflatten: `[K] -> carry`.
      step: `(params, recalled) -> carry`, after the step.
      look: `(params, recalled) -> [F]`, what the body sees at the step.
      unroll: `(params, window, steps, stop_before) -> (carry [steps, ...], [steps, F])`, after and at each of the first
        `steps` steps; no gradient passes the carry before step `stop_before`, and none those before it.
      ahead: `(params, window, carry [N, ...]) -> [N, F]`, what the body sees at the true successor of each step, for
        the carry after it.
    """

    init: Callable[[Array], Tree]
    features: int
    carry_size: int
    carry: Callable[[], Tree]
    flatten: Callable[[Tree], Array]
    unflatten: Callable[[Array], Tree]
    step: Callable[[Tree, Recalled], Tree]
    look: Callable[[Tree, Recalled], Array]
    unroll: Callable[[Tree, Window, int, int], tuple[Tree, Array]]
    ahead: Callable[[Tree, Window, Tree], Array]


def memory_encoder(
    obs_size: int, action_size: int, settings: MemorySettings, precision: str = "float32"
) -> MemoryEncoder:
    """A recurrent encoder with a branch around the memory.

    Args:
      obs_size: O, size of the observation `[O]`.
      action_size: A.
      settings: the cell, and widths.
      precision: of the factors of all its products, "float32" or "bfloat16".

    References:
      Ni et al., "Recurrent model-free RL can be a strong baseline for many POMDPs", section 4 (arXiv:2110.05038).
    """
    product = PRODUCTS[precision]
    sizes = {"obs": obs_size, "action": action_size, "reward": 1}
    widths = {
        "obs": settings.obs_embedding,
        "action": settings.action_embedding,
        "reward": settings.reward_embedding,
    }
    seen_by_cell = [name for name, width in widths.items() if width > 0]
    cell = CELLS[settings.cell](sum(widths.values()), settings.hidden, precision)

    def init(key: Array) -> Tree:
        keys = dict(zip((*sizes, "shortcut", "cell"), jax.random.split(key, 5), strict=True))
        params = {name: _dense(keys[name], sizes[name], widths[name]) for name in seen_by_cell}
        shortcut = _dense(keys["shortcut"], obs_size, settings.obs_embedding)
        return params | {"shortcut": shortcut, "cell": cell.init(keys["cell"])}

    def embed(params: Tree, name: str, x: Array) -> Array:
        return jax.nn.relu(product(x, params[name]["kernel"]) + params[name]["bias"])

    def project(params: Tree, seen: Seen) -> Tree:
        inputs = {"obs": seen.obs, "action": seen.action, "reward": seen.reward[None]}
        told = [embed(params, name, inputs[name]) for name in seen_by_cell]
        return cell.project(params["cell"], jnp.concatenate(told))

    def show(params: Tree, carry: Tree, obs: Array) -> Array:
        return jnp.concatenate([cell.output(params["cell"], carry), embed(params, "shortcut", obs)])

    def step(params: Tree, recalled: Recalled) -> Tree:
        seen = _without_past(recalled.seen)
        return cell.step(params["cell"], forget(recalled.carry, seen.first), project(params, seen))

    def look(params: Tree, recalled: Recalled) -> Array:
        return show(params, step(params, recalled), recalled.seen.obs)

    def unroll(params: Tree, window: Window, steps: int, stop_before: int) -> tuple[Tree, Array]:
        seen = jax.tree.map(lambda leaf: leaf[:steps], seen_in(window))
        projected = jax.vmap(project, (None, 0))(params, seen)

        def run(carry: Tree, part: slice) -> Tree:
            told = jax.tree.map(lambda leaf: leaf[part], projected)
            return cell.unroll(params["cell"], carry, told, seen.first[part])

        before = unflatten(window.carry) if jax.tree.leaves(window.carry) else cell.carry()
        if stop_before == 0:
            carries = run(before, slice(steps))
        else:
            early = jax.lax.stop_gradient(run(before, slice(stop_before)))
            late = run(jax.tree.map(lambda leaf: leaf[-1], early), slice(stop_before, steps))
            carries = jax.tree.map(lambda *parts: jnp.concatenate(parts), early, late)
        return carries, jax.vmap(show, (None, 0, 0))(params, carries, seen.obs)

    def ahead(params: Tree, window: Window, carries: Tree) -> Array:
        went_on = jnp.zeros(window.reward.shape, bool)
        seen = Seen(window.next_obs, window.action, window.reward, went_on)
        return jax.vmap(look, (None, 0))(params, Recalled(seen, carries))

    def flatten(carry: Tree) -> Array:
        return jnp.concatenate(jax.tree.leaves(carry))

    def unflatten(flat: Array) -> Tree:
        leaves, structure = jax.tree.flatten(cell.carry())
        return jax.tree.unflatten(structure, jnp.split(flat, len(leaves)))

    return MemoryEncoder(
        init=init,
        features=settings.hidden + settings.obs_embedding,
        carry_size=flatten(cell.carry()).size,
        carry=cell.carry,
        flatten=flatten,
        unflatten=unflatten,
        step=step,
        look=look,
        unroll=unroll,
        ahead=ahead,
    )


def seen_in(window: Window) -> Seen:
    """What an agent is told at each step of a window, `[N, ...]`; actions and rewards before a first step are 0."""
    before = window.action_before[None], window.reward_before[None]
    action = jnp.concatenate([before[0], window.action[:-1]])
    reward = jnp.concatenate([before[1], window.reward[:-1]])
    return jax.vmap(_without_past)(Seen(window.obs, action, reward, window.first))


class Now(NamedTuple):
    """The steps of a window that are acted in: the first W.

    Attributes:
      window: of N >= W steps.
    """

    window: Window


class Next(NamedTuple):
    """The true successors that the targets of the first W steps ask for the value of.

    Attributes:
      window: likewise.
    """

    window: Window


View: TypeAlias = Now | Next | Recalled
"""What a network with memory looks at: W steps of a window, their successors, or the step at hand."""


def with_memory(
    encoder: MemoryEncoder, body: Network, burn_in: int = 0, part: Callable[[Tree], Tree] = lambda carry: carry
) -> Network:
    """A network on top of what a recurrent encoder, its own, makes of a window.

    Args:
      encoder: what remembers.
      body: `(features [F], *inputs) -> output`.
      burn_in: steps of a window, b, that are only remembered: no gradient passes the carry after them.
      part: `carry -> its part that is this network's`, of a carry that is not `()`.

    Returns:
      A network `(view, *inputs) -> output`, whose parameters and moments are those of "memory" and of "body". Where the
      view is of a window, inputs and output have a leading `[W - b]`; of hidden units those answer that do in any step.
    """

    def look(params: Tree, view: View) -> Array:
        if isinstance(view, Recalled):
            return encoder.look(params, view._replace(carry=part(view.carry)))
        window = view.window
        if jax.tree.leaves(window.carry):
            window = window._replace(carry=part(window.carry))
        if isinstance(view, Now):
            return encoder.unroll(params, window, window.last.shape[0], burn_in)[1][burn_in:]
        carries, _ = encoder.unroll(params, window, window.reward.shape[0], 0)
        last = window.last[burn_in:]
        rows = {name: getattr(window, name)[last] for name in ("next_obs", "action", "reward")}
        return encoder.ahead(params, window._replace(**rows), jax.tree.map(lambda leaf: leaf[last], carries))

    def init(key: Array) -> Tree:
        of_memory, of_body = jax.random.split(key)
        return {"memory": encoder.init(of_memory), "body": body.init(of_body)}

    def apply(params: Tree, moments: Tree, view: View, *inputs: Array) -> Array:
        def one(features: Array, *inputs: Array) -> Array:
            return body.apply(params["body"], moments["body"], features, *inputs)

        features = look(params["memory"], view)
        return one(features, *inputs) if isinstance(view, Recalled) else jax.vmap(one)(features, *inputs)

    def learn(params: Tree, moments: Tree, view: View, *inputs: Array) -> tuple[Array, LearnAux]:
        def one(features: Array, *inputs: Array) -> tuple[Array, LearnAux]:
            return body.learn(params["body"], moments["body"], features, *inputs)

        features = look(params["memory"], view)
        if isinstance(view, Recalled):
            outputs, aux = one(features, *inputs)
        else:
            outputs, aux = jax.vmap(one)(features, *inputs)
            moved, penalty = jax.tree.map(lambda leaf: jnp.mean(leaf, 0), (aux.moments, aux.penalty))
            aux = LearnAux(moved, jnp.any(aux.active, 0), penalty)
        return outputs, aux._replace(moments={"memory": (), "body": aux.moments})

    return Network(init, lambda: {"memory": (), "body": body.moments()}, apply, learn)


def _dense(key: Array, fan_in: int, size: int) -> dict[str, Array]:
    """Weights and biases from U(±1/sqrt(fan_in))."""
    kernel, bias = jax.random.split(key)
    limited = symmetric_uniform(fan_in**-0.5)
    return {"kernel": limited(kernel, (fan_in, size)), "bias": limited(bias, (size,))}


def _without_past(seen: Seen) -> Seen:
    """A step, whose action and reward before are 0 where an episode begins."""
    return seen._replace(action=forget(seen.action, seen.first), reward=forget(seen.reward, seen.first))
