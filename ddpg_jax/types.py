"""Records that cross the borders between modules: plain data and small bundles of pure functions.

Axis letters, used in every docstring of the package: `S` seeds, `E` environments per seed, `U` updates in a call, `B`
batch, `T` time, `N` and `W` steps of a window, `A` action size, `M` critics, `Z` outputs of one critic (1, or atoms),
`*O` observation shape.

Everything here is a `NamedTuple`, so it is a pytree as it stands and `jit`, `vmap`, donation and saving need no special
case. The module imports neither jax nor optax at run time: worker processes and the command line load it cheaply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import jax
    import numpy as np


Array: TypeAlias = "jax.Array"
"""An array on the device, or a traced one."""

HostArray: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
"""An array of the host."""

Tree: TypeAlias = Any
"""Any pytree of arrays."""

BATCH = "batch"
"""Name of the axis over the samples of an update; it is opened and closed inside the assembly."""

PAIR = "pair"
"""Name of the axis over a sample's current and next pair of observation and action, where one batch is made of both."""

Metrics: TypeAlias = "dict[str, Array]"
"""Diagnostics by name: `[]` of one update, `[U]` of a call."""


StopFn: TypeAlias = "Callable[[], bool]"
"""Whether what is going on shall end, as a signal asked for it."""


def never_stop() -> bool:
    """Nobody asks to stop."""
    return False


class Transition(NamedTuple):
    """What the update learns from: one step of experience, or n steps folded into one.

    Attributes:
      obs: observation acted on, `[*O]`.
      action: action taken, `[A]`, each component in [-1, 1].
      reward: sum of gamma^i r_i over the folded steps, `[]`.
      discount: gamma^n, or 0 where `next_obs` is terminal; a time limit is not terminal. `[]`.
      next_obs: the true successor, `[*O]`, also where the episode was cut by a time limit.
      extras: anything a variant adds; `()` if nothing.
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    extras: Tree = ()


class Step(NamedTuple):
    """What any environment, on host or device, reports after an action.

    Attributes:
      obs: observation to act on next, `[*O]`: `next_obs`, or the first of a new episode.
      next_obs: the true successor of the action, `[*O]`, also at an episode's end.
      reward: `[]`.
      terminated: the successor is terminal: its value is 0. `[]`, bool.
      truncated: the episode was cut (time limit): its value is not 0. `[]`, bool.
    """

    obs: Any
    next_obs: Any
    reward: Any
    terminated: Any
    truncated: Any


class Seen(NamedTuple):
    """What an agent with memory is told at a step.

    Attributes:
      obs: to act on, `[*O]`.
      action: the one before, `[A]`.
      reward: what came of it, `[]`.
      first: whether an episode begins, bool `[]`: action and reward count as 0 then, and nothing is remembered.
    """

    obs: Any
    action: Any
    reward: Any
    first: Any


class Recalled(NamedTuple):
    """What an agent with memory acts on, in the place of an observation.

    Attributes:
      seen: the step.
      carry: what it remembers of the steps before.
    """

    seen: Seen
    carry: Tree


class Window(NamedTuple):
    """N consecutive steps of one environment; episodes may end and begin inside.

    W of them are learned from, or lead to those that are; the others, n - 1 of them, only lie ahead of n-step targets.

    Attributes:
      obs: observations acted on, `[N, *O]`.
      action: actions taken, `[N, A]`, in [-1, 1].
      reward: of each step alone, `[N]`.
      next_obs: the true successors, `[N, *O]`, also at an episode's end.
      first: whether an episode begins with the step, bool `[N]`; also where the one before is not stored.
      action_before: the action before the first step, `[A]`; 0 where `first[0]`.
      reward_before: what came of it, `[]`; likewise.
      last: the step whose successor the target of step t asks for the value of, int32 `[W]`: t where n is 1.
      carry: what was remembered before the first step; `()`: nothing.
    """

    obs: Any
    action: Any
    reward: Any
    next_obs: Any
    first: Any
    action_before: Any
    reward_before: Any
    last: Any
    carry: Tree = ()


class Batch(NamedTuple):
    """Transitions drawn for one update.

    Attributes:
      data: transitions with a leading `[B]`.
      weight: importance weights `[B]`; 1 under uniform replay.
      index: where each row stands in the replay, `[B]`, for the write-back of priorities.
    """

    data: Transition
    weight: Any
    index: Any


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


class ObsPart(NamedTuple):
    """An array of an environment's observation, and where it lies in the vector that the agent sees.

    Attributes:
      path: keys of dictionaries and places in tuples that lead to it; `()` where it is the whole observation.
      start: its first number in the vector.
      stop: the one after its last.
      shape: as the environment gives it; its numbers lie in C order.
      dtype: as the environment gives it.
    """

    path: tuple[str, ...]
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """The keys, joined by dots."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.name or 'observation'}[{self.start}:{self.stop}] {self.dtype}{list(self.shape)}"


class EnvSpec(NamedTuple):
    """What an agent must know of an environment.

    Attributes:
      obs_shape: `*O`.
      obs_dtype: name of the dtype observations are stored in: "float32" or "uint8".
      action_low: lower bounds `[A]` in the environment's units, finite.
      action_high: upper bounds `[A]`, each above `action_low`.
      action_shape: of an action as the environment takes it, A numbers in C order; None: `[A]`.
      layout: where the arrays of an observation lie in the vector, in order; `()` where it is one array of `*O`.
      stack: where it is above 0, an observation is the last pictures of the episode, `[stack, H, W, C]`, the newest
        last, and the first of the episode stands in for those before it; so a replay may keep each picture once.
      proprioception: P, numbers that are observed with each picture; their bytes are its last rows, see `envs.mixed`.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: str
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_shape: tuple[int, ...] | None = None
    layout: tuple[ObsPart, ...] = ()
    stack: int = 0
    proprioception: int = 0

    @property
    def action_size(self) -> int:
        """Number of action components A."""
        return len(self.action_low)

    @property
    def own_action_shape(self) -> tuple[int, ...]:
        """Shape of an action as the environment takes it."""
        return (self.action_size,) if self.action_shape is None else self.action_shape

    def part(self, name: str) -> ObsPart | None:
        """The array of an observation that has this name, its keys joined by dots; None: there is none."""
        return next((part for part in self.layout if part.name == name), None)

    def stored(self) -> dict[str, Any]:
        """What files say of it: its fields, without those that most environments leave at their defaults."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name, ...)}

    def differences(self, other: EnvSpec) -> list[str]:
        """One line for each field in which another environment differs, "field: this -> other"."""
        pairs = zip(self._fields, map(_in_words, self), map(_in_words, other), strict=True)
        return [f"{name}: {mine} -> {others}" for name, mine, others in pairs if mine != others]


def _in_words(field: Any) -> Any:
    """A field of an `EnvSpec`, the parts of a layout as text."""
    parts = isinstance(field, tuple) and any(isinstance(each, ObsPart) for each in field)
    return ", ".join(map(str, field)) if parts else field


class DeviceEnv(NamedTuple):
    """An environment written in JAX, as pure functions of one environment; more are added by `vmap`.

    An episode that ends is followed by the next one in the same step, so the shapes never change; the true last
    observation stays in `Step.next_obs`, and both ends are told apart.

    Attributes:
      reset: `key -> (env_state, obs [*O])`, the first of an episode. The key is consumed.
      step: `(env_state, action [A], key) -> (env_state, Step)`; the action lies in [-1, 1], and is mapped affinely onto
        the bounds of each component. The key is consumed.
      spec: what an agent must know.
      max_episode_steps: time limit of an episode; there always is one.
      draw: `(obs [*O], size) -> uint8 [size, size, 3]`, the scene as a picture, for agents that see pixels and for
        videos; a function of the observation alone, which an agent from pixels is to tell positions from, so it leaves
        velocities out. None: the environment cannot draw itself.
    """

    reset: Callable[[Array], tuple[Tree, Array]]
    step: Callable[[Tree, Array, Array], tuple[Tree, Step]]
    spec: EnvSpec
    max_episode_steps: int
    draw: Callable[[Array, int], Array] | None = None


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


Row: TypeAlias = dict[str, Any]
"""One line of the record: event, seed, step, and numbers; only what the configuration determines."""


class Evaluation(NamedTuple):
    """Episodes of the greedy policy; NumPy arrays once they have left the device.

    Attributes:
      returns: sum of rewards, `[S, episodes]`.
      lengths: steps, `[S, episodes]`.
      discounted: sum of gamma^t r_t; where a time limit cut the episode after T steps, with gamma^T times what the
        critics predict of its last observation, as the return of a policy goes on there. `[S, episodes]`.
      predicted: what the critics predicted of the first observation, `[S, episodes]`.
      info: numbers of the info at the episodes' ends, `[S, episodes]` by key, NaN where there is none; `()` where none
        are wanted.
    """

    returns: Any
    lengths: Any
    discounted: Any
    predicted: Any
    info: Tree = ()

    @property
    def q_bias(self) -> Any:
        """By how much the critics promise more than the policy gets: mean of predicted − discounted, `[S]`.

        References:
          Fujimoto et al., figure 1 (arXiv:1802.09477).
        """
        return (self.predicted - self.discounted).mean(-1)


class Snapshot(NamedTuple):
    """All that a loop needs to go on where it was, to the bit.

    Attributes:
      arrays: by name; whole in every snapshot.
      first_row: of the replay's rows, numbered since the run began, the first that is held.
      stop_row: the one after the last.
      read_rows: `(first, stop) -> rows` by name, leaves `[stop - first, ...]`; one whose name is `a@b` has an entry for
        each that is true of the leaf `b`, in order.
      seconds: spent so far, by phase.
      unrecorded: the rows of the report here, which the loop yields again because recording it failed; None: there is
        no such report.
    """

    arrays: Mapping[str, HostArray]
    first_row: int
    stop_row: int
    read_rows: Callable[[int, int], Mapping[str, HostArray]]
    seconds: dict[str, float]
    unrecorded: list[Row] | None = None
