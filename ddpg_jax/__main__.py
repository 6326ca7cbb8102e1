"""`python -m ddpg_jax` is the program `ddpg-jax`."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from ddpg_jax.training.signals import SIGNALS, StopRequest

_ABORTED = 130


def program() -> NoReturn:
    """The program; it hears signals before it imports what takes longer, and none once all is done."""
    request = StopRequest().__enter__()
    try:
        from ddpg_jax.cli import main

        main.program()
    except KeyboardInterrupt:  # a second Ctrl-C while it was loaded
        os._exit(_ABORTED)
    finally:
        request.__exit__()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    program()
