"""Runs that a signal interrupts."""

import signal

import pytest

from ddpg_jax.training.checkpointer import Checkpointer


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
