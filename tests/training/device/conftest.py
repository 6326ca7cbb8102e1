"""What is proved here does not depend on how well the compiler optimises, so it compiles without its slow passes."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import pytest
from tiny_device import idle

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.training.device import compile as compiled_module
from ddpg_jax.training.device import program as program_module


@pytest.fixture(scope="module", autouse=True)
def quick_compiler() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    with mock.patch.object(compiled_module, "compiler_options", return_value=None):  # which would ask for more
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def two_devices() -> list[Any]:
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    return jax.devices()[:2]


@pytest.fixture
def learning_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    making = lambda config: lambda config, spec: idle(make_agent(config, spec))  # noqa: E731
    monkeypatch.setattr(program_module, "find_make_agent", making)
