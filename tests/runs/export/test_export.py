"""What an export leaves, what each file says of itself, and what is refused."""

import importlib.util
import json
import shutil
import subprocess
import sys
import venv

import jax.export
import numpy as np
import pytest
import yaml
from safetensors import safe_open
from stored_policies import KINDS, UNEQUAL, read_arrays, store_run

import ddpg_jax as dj
from ddpg_jax.errors import ConfigError, NotFiniteError, StorageError
from ddpg_jax.runs.export import numpy_policy
from ddpg_jax.runs.export.card import make_card
from ddpg_jax.runs.export.golden import Golden, differences
from ddpg_jax.runs.export.steps import actor_steps
from ddpg_jax.runs.inference import load_run

ARCHIVE = {"policy.safetensors", "numpy_policy.py", "golden.npz", "spec.json", "README.md"}


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The second seed of the tiny run."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    paths = dj.export_policy(run.directory, 1, to=("numpy", "stablehlo"), out=folder)
    assert {path.name for path in paths} == {*ARCHIVE, "policy.stablehlo"} == {path.name for path in folder.iterdir()}
    return folder


def spec_of(folder):
    return json.loads((folder / "spec.json").read_text())


def test_the_description_says_what_the_policy_is(run, exported):
    spec, final = spec_of(exported), run.result["final"]
    env = {"id": "Pendulum-v1", "obs_shape": [3], "obs_dtype": "float32", "action_shape": [1]}
    assert spec["env"] == env | {"action_dtype": "float32", "action_low": [-2.0], "action_high": [2.0]}
    assert (spec["algorithm"], spec["seed"], spec["which"], spec["training_steps"]) == ("ddpg", 9, "final", 60)
    assert spec["score"] == {"mean_return": final["per_seed"][1], "episodes": 3}
    assert spec["run"]["mean_return_of_each_seed"] == {"4": final["per_seed"][0], "9": final["per_seed"][1]}
    assert spec["run"]["config_sha256"] == run.result["config_sha256"]
    assert dj.load_config(**spec["config"]).model_dump() == load_run(run.directory).config.model_dump()


def test_the_best_policy_is_that_of_its_evaluation(run, tmp_path):
    dj.export_policy(run.directory, which="best", out=tmp_path / "best")
    spec, golden = spec_of(tmp_path / "best"), read_arrays(tmp_path / "best" / "golden.npz")
    best = run.result["best"]
    assert (spec["which"], spec["training_steps"]) == ("best", best["step"])
    assert spec["score"]["mean_return"] == best["per_seed"][0]
    np.testing.assert_array_equal(golden["action"], dj.load_policy(run.directory, which="best")(golden["obs"]))
    assert "it flatters" in (tmp_path / "best" / "README.md").read_text()


def test_each_file_says_which_policy_it_is(exported):
    spec = spec_of(exported)
    with safe_open(exported / "policy.safetensors", "np") as file:
        weights = file.metadata()
        assert {name for name in file.keys() if "critic" in name} == set()  # noqa: SIM118
    assert json.loads(weights["spec"]) == spec
    golden = json.loads(str(read_arrays(exported / "golden.npz")["metadata"]))
    program = json.loads(jax.export.deserialize(bytearray((exported / "policy.stablehlo").read_bytes())).fun_name)
    for said in (weights, golden, program):
        assert said["spec_sha256"] == spec["sha256"]
        assert json.loads(said["env"]) == spec["env"]
        assert (said["algorithm"], said["seed"], said["training_steps"]) == ("ddpg", "9", "60")
        assert json.loads(said["score"])["mean_return"] == spec["score"]["mean_return"]
        assert json.loads(said["versions"])["jax"] == jax.__version__
    assert program["calling_convention_version"] >= 9
    assert spec["sha256"] in (exported / "README.md").read_text()


def test_the_card_holds_the_scores_and_how_each_file_is_used(run, exported):
    card = (exported / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    head, scores = yaml.safe_load(front), run.result["final"]
    assert head["library_name"] == "ddpg_jax"
    assert {"reinforcement-learning", "ddpg", "Pendulum-v1"} <= {*head["tags"]}
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert result["dataset"] == {"name": "Pendulum-v1", "type": "Pendulum-v1"}
    values = {each["name"]: each["value"] for each in result["metrics"]}
    assert values == {
        "mean return of seed 4": scores["per_seed"][0],
        "mean return of seed 9": scores["per_seed"][1],
        "mean of 2 seeds": scores["interquartile_mean"],
    }
    assert f"| 9 (this policy) | {scores['per_seed'][1]:.1f} |" in text
    assert "## NumPy" in text
    assert "## StableHLO" in text
    assert "## ONNX" not in text


def test_the_card_of_an_unfinished_and_of_a_diverged_seed_says_so(exported):
    spec = spec_of(exported)
    card = make_card(spec | {"run": None, "score": None, "training_steps": None}, ("numpy",), {})
    assert "no score is known" in card
    assert "model-index" not in card
    others = {"mean_return_of_each_seed": {"4": -100.0}, "interval": None, "interquartile_mean": -100.0}
    card = make_card(spec | {"score": None, "run": spec["run"] | others}, ("numpy",), {})
    assert "Seed 9 diverged" in card
    assert yaml.safe_load(card.split("---\n")[1])["model-index"]


def test_the_numpy_policy_takes_one_observation_or_many_and_nothing_else(run, exported):
    policy, golden = numpy_policy.load_policy(exported / "policy.safetensors"), read_arrays(exported / "golden.npz")
    np.testing.assert_allclose(policy(golden["obs"][3]), golden["action"][3], atol=1e-5)
    assert policy(golden["obs"][3]).dtype == np.float32
    for other in (np.zeros(2), np.zeros((1, 1, 3)), np.float32(0)):
        with pytest.raises(ValueError, match=r"expected observations of shape \(3,\), or many of them"):
            policy(other)


def test_the_numpy_policy_imports_numpy_and_safetensors_only(exported):
    block = "import sys\nfor name in ('jax', 'flax', 'ddpg_jax'):\n    sys.modules[name] = None\n"
    code = f"{block}import runpy\nrunpy.run_path('numpy_policy.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-4]) < 1e-6, done.stdout
    assert len((exported / "numpy_policy.py").read_text().splitlines()) <= 120


@pytest.mark.slow
def test_the_numpy_policy_runs_in_an_environment_with_numpy_and_safetensors_alone(tmp_path):
    run = store_run(tmp_path / "run", normalize_observations=True, **KINDS["batch"])
    dj.export_policy(run, out=tmp_path / "out")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "safetensors"], check=True)
    missing = [python, "-I", "-c", "import importlib.util as i; print(i.find_spec('jax'), i.find_spec('ddpg_jax'))"]
    assert subprocess.run(missing, capture_output=True, text=True, cwd=tmp_path).stdout == "None None\n"
    done = subprocess.run([python, "-I", "numpy_policy.py"], cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-4]) < 1e-6, done.stdout


def test_onnx_holds_named_ports_metadata_and_plain_operators(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    run = store_run(tmp_path / "run", normalize_observations=True, **KINDS["simba"])
    dj.export_policy(run, to="onnx", out=tmp_path / "out")
    model, spec = onnx.load(tmp_path / "out" / "policy.onnx"), spec_of(tmp_path / "out")
    onnx.checker.check_model(model, full_check=True)
    ports = [(p.name, p.type.tensor_type.shape.dim) for p in (*model.graph.input, *model.graph.output)]
    assert [(name, dim[0].dim_param, dim[1].dim_value) for name, dim in ports] == [
        ("obs", "batch", 5),
        ("action", "batch", 3),
    ]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["spec_sha256"] == spec["sha256"]
    assert json.loads(said["env"])["action_high"] == [0.3, 1.0, 700.0]
    assert {node.domain for node in model.graph.node} == {""}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("policy.onnx", "spec.json", "golden.npz", "README.md")
    }


# --- What is refused.


@pytest.mark.parametrize(("form", "extra"), [("onnx", "onnx"), ("stablehlo", "export")])
def test_a_missing_package_is_named_with_its_extra_before_anything_is_written(form, extra, run, tmp_path, monkeypatch):
    missing = {"onnx": "onnxruntime", "stablehlo": "flatbuffers"}[form]
    find = importlib.util.find_spec
    found = {"onnx": object()}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else found.get(name) or find(name)
    )
    with pytest.raises(ConfigError, match=rf'{form} needs {missing}, .*pip install "ddpg-jax\[{extra}\]"'):
        dj.export_policy(run.directory, to=("numpy", form), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["torch", ("numpy", "torch"), ()])
def test_a_form_that_is_none_is_refused(to, run, tmp_path):
    with pytest.raises(ConfigError, match="to=: expected safetensors, numpy, stablehlo, onnx, or several"):
        dj.export_policy(run.directory, to=to, out=tmp_path / "out")


def test_a_seed_that_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(IndexError, match="seed=2: the run has 2 seeds"):
        dj.export_policy(run.directory, 2, out=tmp_path / "out")


def test_an_export_is_replaced_only_where_that_is_asked_for(exported, run, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "out")
    with pytest.raises(StorageError, match=r"not empty.*name another folder by out= or replace .* overwrite="):
        dj.export_policy(run.directory, out=folder)
    dj.export_policy(run.directory, out=folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == ARCHIVE  # the StableHLO of another seed is gone
    assert spec_of(folder)["seed"] == 4
    (folder / "thesis.tex").touch()
    with pytest.raises(StorageError, match=r"holds thesis\.tex: name another folder by out=$"):
        dj.export_policy(run.directory, out=folder, overwrite=True)
    assert spec_of(folder)["seed"] == 4


def test_a_policy_that_has_diverged_is_refused(tmp_path, monkeypatch):
    run = store_run(tmp_path / "run")
    broken = lambda *given: lambda obs: np.full((len(obs), 3), np.nan)  # noqa: E731
    monkeypatch.setattr("ddpg_jax.runs.export.export.seed_policy", broken)
    with pytest.raises(NotFiniteError, match="actions of seed 0 are not finite"):
        dj.export_policy(run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_form_that_gives_other_actions_is_refused(tmp_path, monkeypatch):
    run = store_run(tmp_path / "run")
    steps = lambda config, arrays: [*actor_steps(config, arrays), {"op": "relu"}]  # noqa: E731
    monkeypatch.setattr("ddpg_jax.runs.export.export.actor_steps", steps)
    with pytest.raises(ConfigError, match="numpy gives other actions than load_policy"):
        dj.export_policy(run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_of_ones_own_goes_where_its_code_is_not_needed(tmp_path):
    """Another network of the same layers is told by what it does, one of other layers by its names."""
    run = store_run(tmp_path / "run", make_networks="stranger:linear")
    dj.export_policy(run, to=("safetensors", "stablehlo"), out=tmp_path / "out", allow_imports=True)
    golden = read_arrays(tmp_path / "out" / "golden.npz")
    # Beyond the first 600 observations are extreme ones, where terms cancel and the order of a sum is seen.
    ordinary = Golden(golden["obs"][:600], golden["action"][:600])
    program = jax.export.deserialize(bytearray((tmp_path / "out" / "policy.stablehlo").read_bytes()))
    assert differences(UNEQUAL, ordinary, program.call(ordinary.obs)).max() < 1e-5
    np.testing.assert_array_equal(golden["action"], dj.load_policy(run, allow_imports=True)(golden["obs"]))
    assert spec_of(tmp_path / "out")["policy"] is None
    with pytest.raises(ConfigError, match=r"not a network of ddpg_jax.*safetensors and stablehlo only"):
        dj.export_policy(run, to="numpy", out=tmp_path / "other", allow_imports=True)
    assert not (tmp_path / "other").exists()
