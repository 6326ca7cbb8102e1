"""All that a run compiles can be lowered for GPUs and TPUs, from a machine that has neither."""

import jax
import pytest
from tiny_run import tiny_config

import ddpg_jax as dj
from ddpg_jax.training.device import compile as device_compile
from ddpg_jax.training.host import compile as host_compile

PLATFORMS = ("cuda", "tpu")
PIXELS = {"env": {"pixels": {"size": 32, "stack": 2}}, "algorithm": {"name": "drqv2", "hidden": [8]}}
CASES = {
    "ddpg": {},
    "td3, layers": {"algorithm": {"name": "td3", "normalization": "layer"}},
    "d4pg, priorities": {"algorithm": {"name": "d4pg", "v_min": -9, "v_max": 0}, "replay": {"kind": "prioritized"}},
    "fasttd3": {"algorithm": {"name": "fasttd3", "v_min": -9, "v_max": 0}},
    "simba, bfloat16": {"precision": "bfloat16", "algorithm": {"architecture": "simba"}},
    "td3, lru": {"algorithm": {"name": "td3", "memory": {"cell": "lru", "hidden": 8, "length": 4}}},
    "ddpg, lstm": {"algorithm": {"memory": {"hidden": 8, "length": 4, "keep_every": 2}}},
    "drqv2": PIXELS,
    "flash, one batch of both pairs, held noise": {
        "algorithm": {
            "name": "fasttd3",
            "architecture": "flash",
            "hidden": [8],
            "critic_hidden": [8],
            "joint_batch": True,
            "scale_rewards": True,
            "return_limit": 5.0,
            "v_min": -5,
            "v_max": 5,
        },
        "exploration": {"kind": "gaussian", "hold": 16},
    },
    "mrq, priorities that fade": {
        "algorithm": {"name": "mrq", "embedding_size": 8, "encoder_hidden": [8], "contrast_weight": 0.1},
        "replay": {"kind": "prioritized", "fade": 0.9},
    },
}
FAST = ("ddpg",)


class Lowered(Exception):
    """All was lowered; nothing is to be compiled or run."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CASES])
@pytest.mark.parametrize("identifier", ["Pendulum-v1", "jax:pendulum"])
def test_every_program_is_lowered(identifier, name, tmp_path, monkeypatch):
    """What chooses by the platform takes that of accelerators."""
    texts = []

    def lower_all(programs, stop=None):
        for function, arguments, _ in programs:
            texts.append(function.trace(*arguments).lower(lowering_platforms=PLATFORMS).as_text())
        raise Lowered

    changes = CASES[name]
    config = tiny_config(**changes | {"seeds": [1, 2], "env": {"id": identifier} | changes.get("env", {})})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(host_compile, "compile_all", lower_all)
    monkeypatch.setattr(device_compile, "compile_all", lower_all)
    with pytest.raises(Lowered):
        dj.train(config, tmp_path / "run")
    assert len(texts) >= 3
    assert all("func.func public @main" in text for text in texts)
