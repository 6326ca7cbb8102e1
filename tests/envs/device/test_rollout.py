"""Evaluations on a device are waited for in a way that hears a stop, and Ctrl-C."""

import threading

import numpy as np
import pytest

from ddpg_jax.envs.device.rollout import fetch
from ddpg_jax.errors import Interrupted


def test_a_program_that_does_not_return_is_not_waited_for_after_a_stop():
    release, looks = threading.Event(), iter([False, False, True])
    with pytest.raises(Interrupted, match="while the policies were evaluated"):
        fetch(release.wait, lambda: next(looks))
    release.set()
    assert fetch(lambda: np.arange(3), lambda: False).tolist() == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        fetch(lambda: 1 // 0, lambda: False)
