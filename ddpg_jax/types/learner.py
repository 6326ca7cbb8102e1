"""The state of a learner, and the learner as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ddpg_jax.types.aliases import Array, Metrics, Tree
from ddpg_jax.types.data import Batch, Recalled


class Params(NamedTuple):
    """One entry for each network; also the shape of targets, of optimiser states and of the optimisers themselves."""

    encoder: Any
    actor: Any
    critic: Any


class Stats(NamedTuple):
    """Running moments, which no gradient reaches.

    Attributes:
      obs: of the observations acted on; `()` where they are not normalised.
      networks: of the activations that batch normalisation needs; `()` for each network without.
      reward: what rewards are divided by, `[]`; `()` where they are not scaled.
      targets: what is known of the critics' targets so far; `()` where nothing is kept.
    """

    obs: Tree
    networks: Params
    reward: Tree = ()
    targets: Tree = ()


class TrainState(NamedTuple):
    """All that learning changes; arrays only.

    Attributes:
      step: int32 `[]`, critic updates so far, and the counter of the update's random stream.
      params: online parameters.
      target_params: target parameters, copies at the start.
      opt_state: optimiser states.
      stats: running moments of observations and batches; without leaves if there are none.
      rejected: int32 `[2]`, how many steps of critics and of actor in a row were not applied, as they were not finite.
    """

    step: Any
    params: Params
    target_params: Params
    opt_state: Params
    stats: Stats
    rejected: Any

    @property
    def for_acting(self) -> TrainState:
        """The part that acting reads: a call with fewer arrays is dispatched faster."""
        empty = Params((), (), ())
        params = self.params._replace(critic=())
        return self._replace(step=(), params=params, target_params=empty, opt_state=empty, rejected=())


class UpdateFn(Protocol):
    """`(state, batches, run_key) -> (state, metrics, td_error)`; see `Agent.update`."""

    def __call__(self, state: TrainState, batches: Batch, run_key: Array, /) -> tuple[TrainState, Metrics, Array]:
        """Learns from `U` batches in order."""
        ...


class ActFn(Protocol):
    """`(state, act_state, obs, first, keys) -> (action, act_state)`; see `Agent.act`."""

    def __call__(
        self, state: TrainState, act_state: Tree, obs: Array, first: Array, keys: Array, /
    ) -> tuple[Array, Tree]:
        """Acts in the `E` environments of one seed."""
        ...


class Memory(NamedTuple):
    """What an agent remembers of an episode, as pure functions of one environment.

    Attributes:
      init: `() -> carry`, before the first step.
      init_acting: `() -> carry` of an agent that only acts, which may leave out what `Agent.value` alone needs.
      update: `(state, recalled) -> carry`, after the step, with what it was begun with; it reads what `Agent.policy`
        reads, or `Agent.value` where that counts.
      flatten: `carry -> [K]`, of a carry from `init`, as the replay keeps it.
      keep_every: steps between two that it keeps, P; 0: it keeps none.
    """

    init: Callable[[], Tree]
    init_acting: Callable[[], Tree]
    update: Callable[[TrainState, Recalled], Tree]
    flatten: Callable[[Tree], Array]
    keep_every: int = 0


class Agent(NamedTuple):
    """A learner of one seed, as pure functions; seeds are added by `vmap`.

    Attributes:
      init: `run_key -> TrainState`.
      observe: `(state, obs [E, *O]) -> state`: takes note of the observations about to be acted on, in `stats.obs`
        alone.
      init_act: `num_envs -> act_state`, the exploration states of the seed's environments.
      act: `(state, act_state, obs [E, *O], first [E], keys [E]) -> (action [E, A], act_state)`, with exploration; the
        keys are consumed. It reads encoder, actor and `state.stats` only. Actions lie in [-1, 1].
      policy: `(state, obs [*O]) -> action [A]`, greedy; reads what `act` reads.
      update: `(state, batches [U, B, ...], run_key) -> (state, metrics [U], td_error [U, B])`. What is not finite is
        never applied: see `agents.policy_gradient`. Batches are of transitions, or of windows, as `algorithm.window` of
        the configuration says.
      reset: `(state, run_key) -> state`: networks, their targets and optimisers begin anew; what was seen stays. A
        frozen learner stays as it is.
      value: `(state, obs [*O]) -> []`, what the critics predict of the greedy policy from there on, discounted.
      diagnose: `(state, batch [B]) -> metrics []`, what is worth a look now and then but not in every update: shares of
        dead hidden units, distance of the target critics.
      memory: what it remembers; None: nothing. With it, `obs` of `act`, `policy` and `value` is a `Recalled`, and
        `batch.data` holds windows: `obs` is a `Window`, `next_obs` is `()`, and `action [W, A]`, `reward [W]` and
        `discount [W]` are as in `Transition`, for each of its first W steps.
    """

    init: Callable[[Array], TrainState]
    observe: Callable[[TrainState, Array], TrainState]
    init_act: Callable[[int], Tree]
    act: ActFn
    policy: Callable[[TrainState, Array], Array]
    update: UpdateFn
    reset: Callable[[TrainState, Array], TrainState]
    value: Callable[[TrainState, Array], Array]
    diagnose: Callable[[TrainState, Batch], Metrics]
    memory: Memory | None = None
