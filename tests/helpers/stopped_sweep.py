"""A sweep that is told to stop at a chunk, as by Ctrl-C."""

from contextlib import contextmanager

import pytest

from ddpg_jax.training.device import loop as device
from ddpg_jax.training.signals import StopRequest


@contextmanager
def stopped_after(chunks):
    """Ctrl-C comes while that chunk runs, counted over all turns from 1; 0: before the first one begins."""

    class Stop(StopRequest):
        def __enter__(self):
            self.requested = chunks == 0
            return self

        def __exit__(self, *error):
            pass

    made, seen = [], iter(range(1, 1000))

    def stop():
        made.append(Stop())
        return made[-1]

    def loop(*args):
        for chunk in device.device_loop(*args):
            made[-1].requested |= next(seen) == chunks
            yield chunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddpg_jax.training.context.StopRequest", stop)
        patch.setattr("ddpg_jax.training.sweep.batches.device_loop", loop)
        yield
