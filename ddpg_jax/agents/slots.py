"""The plug points of the assembly: what a network, a head, a noise or a small function of one sample must look like.

What fills them is in `networks`, `heads`, `noise`, `exploration`, `normalizers`, `optimizers` and `targets`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ddpg_jax.types import Array, Params, TrainState, Transition, Tree

ActionFn: TypeAlias = Callable[[Array, Array, Array], Array]
"""`(action [A], key, step []) -> action [A]`: what becomes of mu(s) inside a loss. The key is consumed."""

SelectFn: TypeAlias = Callable[[Params, Params], Params]
"""`(params, target_params) -> Params`: whose actor and encoder choose the next action."""

TargetUpdateFn: TypeAlias = Callable[[Params, Params, Array], Params]
"""`(params, target_params, step) -> target_params`."""

AugmentFn: TypeAlias = Callable[[Transition, Array], Transition]
"""`(transition, key) -> transition`, for one sample. The key is consumed."""


AuxiliaryFn: TypeAlias = Callable[[Tree, Transition], dict[str, Array]]
"""`(encoder's params, transition) -> losses []` by name, of one sample: what teaches the encoder beside the critics'
loss. Observations are as the networks see them; the mean over the batch is not weighted."""

StateFn: TypeAlias = Callable[[TrainState], TrainState]
"""`state -> state`: what becomes of the learner after a round, whose steps are counted in it."""


class LearnAux(NamedTuple):
    """What a network leaves behind while it learns.

    Attributes:
      moments: its running moments, moved toward those of the batch.
      active: which hidden units answer to the sample, bool `[H]`.
      penalty: what the actor's loss of the sample has besides, `[]`; `()`: nothing.
    """

    moments: Tree
    active: Any
    penalty: Tree = ()


OF_ONE_BATCH = LearnAux(moments=None, active=0, penalty=0)  # pyright: ignore[reportArgumentType]
"""Axes of what `vmap` over samples brings out of `learn`: a batch has one set of moments."""


class Network(NamedTuple):
    """A parametric function of one sample.

    Attributes:
      init: `key -> params`.
      moments: `() -> moments`, those that batch normalisation starts from; `()` without.
      apply: `(params, moments, *inputs) -> output`, inputs without batch axis: as it acts, by running moments.
      learn: `(params, moments, *inputs) -> (output, LearnAux)`: as it learns, inside a `vmap` whose axis is `BATCH`, by
        the moments of that batch.
    """

    init: Callable[[Array], Tree]
    moments: Callable[[], Tree]
    apply: Callable[..., Any]
    learn: Callable[..., tuple[Any, LearnAux]]


Pair: TypeAlias = tuple[Tree, Array]
"""What a critic judges: an observation as the encoder gives it, and an action `[A]`."""


class Pairing(NamedTuple):
    """How a critic judges pairs while something learns from that, for one sample inside a `vmap` whose axis is `BATCH`.

    Attributes:
      in_critic_loss: `(critic, params, moments, pair, other) -> (outputs, LearnAux)`: the pair, beside the other of the
        same transition, which `other()` gives: the current one, or that which its target is of.
      in_actor_loss: `(critic, params, moments, pair) -> outputs`: the pair of an observation and the policy's action.
    """

    in_critic_loss: Callable[[Network, Tree, Tree, Pair, Callable[[], Pair]], tuple[Array, LearnAux]]
    in_actor_loss: Callable[[Network, Tree, Tree, Pair], Array]


class Normalizer(NamedTuple):
    """How observations are brought to one scale before a network sees them.

    Attributes:
      init: `() -> moments`.
      observe: `(moments, obs [E, *O]) -> moments`, of the observations acted on.
      apply: `(moments, obs [*O]) -> obs`.
    """

    init: Callable[[], Tree]
    observe: Callable[[Tree, Array], Tree]
    apply: Callable[[Tree, Array], Array]


class CriticHead(NamedTuple):
    """What the outputs `[M, Z]` of the critics mean, for one sample.

    Attributes:
      target: `(reward [], discount [], next_outputs [M, Z], key) -> y`, what the critics are regressed on. The key is
        the same for all samples of an update.
      loss: `(outputs [M, Z], y) -> (loss [], td_error [])`; the error is a size, which priorities are made of.
      value: `outputs [M', Z] -> []`, what the actor ascends; also given all `[M, Z]`, for the metrics.
      actor_critics: takes parameters or moments with a leading `[M]` and returns those of the critics that `value`
        needs, with a leading `[M']`.
    """

    target: Callable[[Array, Array, Array, Array], Array]
    loss: Callable[[Array, Array], tuple[Array, Array]]
    value: Callable[[Array], Array]
    actor_critics: Callable[[Tree], Tree] = lambda critics: critics


class TargetRange(NamedTuple):
    """What is kept of the critics' targets, and bounds those to come, or says in which units they are.

    Attributes:
      init: `() -> range`.
      observe: `(range, y [B, ...]) -> range`, of the targets of a batch.
      clip: `(range, next_outputs [M, Z]) -> [M, Z]`, of one sample.
      reward: `(range, reward []) -> []`, likewise.
    """

    init: Callable[[], Tree]
    observe: Callable[[Tree, Array], Tree]
    clip: Callable[[Tree, Array], Array]
    reward: Callable[[Tree, Array], Array] = lambda seen, reward: reward


class Noise(NamedTuple):
    """Exploration noise of one environment, in units of half the action range.

    Attributes:
      init: `() -> state`.
      sample: `(state, key, first) -> (noise [A], state)`; `first`, bool `[]`, is true at an episode's first step. The
        key is consumed.
    """

    init: Callable[[], Tree]
    sample: Callable[[Tree, Array, Array], tuple[Array, Tree]]


PolicyFn: TypeAlias = Callable[[Tree], Array]
"""`params -> action [A]`: the greedy action of an actor with these parameters at the observation at hand."""


class Exploration(NamedTuple):
    """How one environment is explored.

    Attributes:
      init: `() -> state`.
      act: `(policy, params, state, key, first) -> (action [A], state)`, for the actor's parameters `params`; `first`,
        bool `[]`, is true at an episode's first step. The action may leave [-1, 1]: it is clipped afterwards. The key
        is consumed.
    """

    init: Callable[[], Tree]
    act: Callable[[PolicyFn, Tree, Tree, Array, Array], tuple[Array, Tree]]
