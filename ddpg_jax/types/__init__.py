"""Records that cross the borders between modules: plain data and small bundles of pure functions.

Axis letters, used in every docstring of the package: `S` seeds, `E` environments per seed, `U` updates in a call, `B`
batch, `T` time, `N` and `W` steps of a window, `A` action size, `M` critics, `Z` outputs of one critic (1, or atoms),
`*O` observation shape.

Everything here is a `NamedTuple`, so it is a pytree as it stands and `jit`, `vmap`, donation and saving need no special
case. Neither jax nor optax is imported at run time: worker processes and the command line load it cheaply.
"""

from ddpg_jax.types.aliases import BATCH, PAIR, Array, HostArray, Metrics, StopFn, Tree, never_stop
from ddpg_jax.types.data import Batch, Recalled, Seen, Step, Transition, Window
from ddpg_jax.types.environment import DeviceEnv, EnvSpec, ObsPart
from ddpg_jax.types.learner import ActFn, Agent, Memory, Params, Stats, TrainState, UpdateFn
from ddpg_jax.types.record import Evaluation, Row, Snapshot

__all__ = [
    "BATCH",
    "PAIR",
    "ActFn",
    "Agent",
    "Array",
    "Batch",
    "DeviceEnv",
    "EnvSpec",
    "Evaluation",
    "HostArray",
    "Memory",
    "Metrics",
    "ObsPart",
    "Params",
    "Recalled",
    "Row",
    "Seen",
    "Snapshot",
    "Stats",
    "Step",
    "StopFn",
    "TrainState",
    "Transition",
    "Tree",
    "UpdateFn",
    "Window",
    "never_stop",
]
