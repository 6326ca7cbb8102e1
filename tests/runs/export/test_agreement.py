"""Every form of every network gives the actions of `load_policy`, inside the bounds."""

import importlib.util
import json
import re

import jax.export
import numpy as np
import pytest
from stored_policies import KINDS, UNEQUAL, store_run

import ddpg_jax as dj
from ddpg_jax.runs.export import numpy_policy
from ddpg_jax.runs.export.golden import Golden, differences, golden_observations
from ddpg_jax.types import EnvSpec

MOST = 1e-6
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))

CASES = {
    "ddpg": {"name": "ddpg", **KINDS["plain"]},
    "td3-layer-moments": {"name": "td3", **KINDS["layer"], "activation": "silu", "normalize_observations": True},
    "d4pg-batch-moments": {"name": "d4pg", **KINDS["batch"], "activation": "tanh", "normalize_observations": True},
    "fasttd3-simba": {"name": "fasttd3", **KINDS["simba"], "activation": "elu"},
    "ddpg-simba_v2-moments": {"name": "ddpg", **KINDS["simba_v2"], "normalize_observations": True},
    "fasttd3-flash": {"name": "fasttd3", **KINDS["flash"], "joint_batch": True, "normalize_observations": False},
}
EVERY = {
    f"{name}-{kind}-{activation}-{moments}": {
        "name": name,
        **settings,
        "activation": activation,
        "normalize_observations": moments,
    }
    for name, activation in (("ddpg", "relu"), ("td3", "elu"), ("d4pg", "tanh"), ("fasttd3", "silu"))
    for kind, settings in KINDS.items()
    if kind not in ("simba_v2", "flash") or activation == "relu"  # they have no other
    for moments in (False, True)
}


def runner(form, folder):
    """`obs -> action` by what an export left, as somebody without ddpg_jax would."""
    if form == "numpy":
        return numpy_policy.load_policy(folder / "policy.safetensors")
    if form == "stablehlo":
        exported = jax.export.deserialize(bytearray((folder / "policy.stablehlo").read_bytes()))
        return lambda obs: np.asarray(exported.call(obs))
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
    return lambda obs: session.run(["action"], {"obs": obs})[0]


def check(form, folder):
    """Batches of any size; what float32 cannot tell at extreme observations is no difference of a form's."""
    act, spec = runner(form, folder), UNEQUAL
    with np.load(folder / "golden.npz") as golden:
        obs, action = golden["obs"], golden["action"]
    assert obs.shape == (1000, 5)
    given = act(obs)
    off, allowed = differences(spec, Golden(obs, action), given), np.full((len(obs), 1), MOST)
    allowed[600:] += 30 * last_bits(folder, obs[600:])
    assert (off <= allowed).all(), (off[:600].max(), off[600:].max(), np.argwhere(off > allowed)[:5])
    assert given.dtype == action.dtype == np.float64
    assert (given >= spec.action_low).all()
    assert (given <= spec.action_high).all()
    for count in (0, 1, 257):
        np.testing.assert_allclose(act(obs[:count]), given[:count], rtol=1e-5, atol=1e-5)
        assert act(obs[:count]).shape == (count, 3)


def last_bits(folder, obs):
    """By how much actions change when observations do so in their last bits, in float64, `[N, 1]`."""
    policy, rng = numpy_policy.load_policy(folder / "policy.safetensors"), np.random.default_rng(1)
    policy.spec["env"] |= {"obs_dtype": "float64"}
    base, moved = policy(obs), []
    for _ in range(8):
        changed = obs.astype(np.float64) * (1 + 2.0**-24 * rng.choice([-1, 1], obs.shape))
        moved.append(differences(UNEQUAL, Golden(obs, base), policy(changed)).max(1, keepdims=True))
    return np.max(moved, 0)


FORMS = ("numpy", "stablehlo", "onnx") if HAS_ONNX else ("numpy", "stablehlo")


def export_and_check(path, **settings):
    run = store_run(path / "run", **settings)
    dj.export_policy(run, to=FORMS, out=path / "out")
    with np.load(path / "out" / "golden.npz") as golden:
        np.testing.assert_array_equal(golden["action"], dj.load_policy(run)(golden["obs"]))
    for form in FORMS:
        check(form, path / "out")


@pytest.mark.parametrize("case", CASES)
def test_each_form_gives_the_actions_of_load_policy(case, tmp_path):
    export_and_check(tmp_path, **CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY)
def test_each_form_of_every_network_gives_the_actions_of_load_policy(case, tmp_path):
    export_and_check(tmp_path, **EVERY[case])


def test_factors_are_rounded_to_bfloat16_where_the_run_rounded_them(tmp_path):
    """Where a factor lies between two numbers of bfloat16 the last bit decides: most actions agree, not all."""
    run = store_run(tmp_path / "run", precision="bfloat16", **KINDS["layer"])
    dj.export_policy(run, to=FORMS, out=tmp_path / "out")
    with np.load(tmp_path / "out" / "golden.npz") as file:
        golden = Golden(**{name: file[name] for name in ("obs", "action")})
    for form in FORMS:
        off = differences(UNEQUAL, golden, runner(form, tmp_path / "out")(golden.obs)).max(1)[:600]
        assert np.median(off) < MOST
        assert off.max() < 0.02
    spec = json.loads((tmp_path / "out" / "spec.json").read_text())
    assert [step.get("factors") for step in spec["policy"] if step["op"] == "dense"] == ["bfloat16", "bfloat16", None]
    policy = numpy_policy.load_policy(tmp_path / "out" / "policy.safetensors")
    for step in policy.spec["policy"]:
        step.pop("factors", None)
    assert np.median(differences(UNEQUAL, golden, policy(golden.obs)).max(1)[:600]) > 1e-4


def test_golden_observations_lie_where_the_run_has_been_and_far_away():
    moments = {"stats/obs/mean": np.array([50.0, -3.0, 0.0]), "stats/obs/variance": np.array([4.0, 0.01, 1.0])}
    spec = EnvSpec((3,), "float32", (0.0,), (1.0,))
    obs = golden_observations(spec, moments)
    assert (obs.shape, obs.dtype) == ((1000, 3), np.float32)
    np.testing.assert_allclose(obs[:600].mean(0), moments["stats/obs/mean"], atol=0.3)
    np.testing.assert_allclose(obs[:600].std(0), [2.0, 0.1, 1.0], rtol=0.1)
    assert (obs[600] == 0).all()
    assert {1e6, -1e6} <= {*obs[601:607].ravel()}
    assert np.abs(obs).max() > 2e6
    np.testing.assert_array_equal(obs, golden_observations(spec, moments))
    images = golden_observations(EnvSpec((2, 2), "uint8", (0.0,), (1.0,)), {})
    assert (images.shape, images.min(), images.max()) == ((1000, 2, 2), 0, 255)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stablehlo_is_lowered_for_each_platform_with_the_one_custom_call_that_checks_shapes(precision, tmp_path):
    run = store_run(tmp_path / "run", precision=precision, normalize_observations=True, **KINDS["layer"])
    dj.export_policy(run, to=("stablehlo",), out=tmp_path / "out")
    exported = jax.export.deserialize(bytearray((tmp_path / "out" / "policy.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) == {"shape_assertion"}
