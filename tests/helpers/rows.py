"""Rows for loggers, and a disk on which they cannot be written."""

import errno

from ddpg_jax.runs import filesystem

ROWS = [
    {"event": "episode", "seed": 4, "step": 15, "env": 0, "episode": 0, "episode_return": -70.25, "episode_length": 15},
    {"event": "episode", "seed": 9, "step": 15, "env": 0, "episode": 0, "episode_return": 1 / 3, "episode_max_q": 2.5},
    {"event": "update", "seed": 4, "step": 20, "updates": 3, "critic_loss": 1e-30, "max_q": 2.0},
    {"event": "evaluation", "seed": 9, "step": 25, "mean_return": -1.5, "mean_length": 15.0, "returns": [-1.0, -2.0]},
]


class Full:
    """A disk on which calls fail, for as long as it is full."""

    def __init__(self, monkeypatch, *operations):
        self.full, self._operations = True, operations
        monkeypatch.setattr(filesystem, "fault_point", self)

    def __call__(self, operation, path):
        if self.full and operation in self._operations:
            raise OSError(errno.ENOSPC, "no space left")
