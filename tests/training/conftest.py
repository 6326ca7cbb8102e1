"""The tiny run of the session."""

import pytest
from tiny_run import finished_run

import ddpg_jax as dj


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> dj.Run:
    return finished_run(tmp_path_factory)
