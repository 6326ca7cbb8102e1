"""The tiny run of the session, and runs that a signal interrupts."""

import signal

import pytest
from tiny_run import finished_run

import ddpg_jax as dj
from ddpg_jax.training.checkpointer import Checkpointer


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> dj.Run:
    return finished_run(tmp_path_factory)


@pytest.fixture
def signal_at(monkeypatch):
    """Raises a real signal while the iteration of a step is going on."""
    should_save = Checkpointer.should_save

    def at(step, number=signal.SIGTERM):
        def with_signal(self, now):
            if now >= step and not self.stopping:
                signal.raise_signal(number)
            return should_save(self, now)

        monkeypatch.setattr(Checkpointer, "should_save", with_signal)

    return at
