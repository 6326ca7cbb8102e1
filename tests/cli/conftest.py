"""A run that the program has trained."""

import pytest
from program import TINY, program


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A tiny run by `train`, started in its parent directory."""
    folder = tmp_path_factory.mktemp("cli")
    done = program("train", *TINY, "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "run"
