"""The blocks of docs/deploying.md run as they stand; that of ONNX where its extra is installed."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def test_the_page_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    observations = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    names = {"run_dir": run.directory, "observations": observations, "obs": observations[0]}
    found = []
    for block in BLOCKS:
        if "onnxruntime" in block and not HAS_ONNX:
            continue
        code = block if HAS_ONNX else block.replace(', "onnx")', ")")
        exec(compile(code, "deploying.md", "exec"), names)  # noqa: S102
        if "action" in names:
            found.append(names.pop("action"))
        if "actions" in names:
            found.append(np.asarray(names.pop("actions")))
    assert [x.shape for x in found] == [(1,)] + [(4, 1)] * (1 + HAS_ONNX)
    for each in found[1:]:
        np.testing.assert_allclose(each[0], found[0], atol=1e-5)
    assert '"env"' in names["about"]


@pytest.mark.skipif(not HAS_ONNX, reason="the extra onnx is not installed")
def test_the_metadata_of_onnx_are_where_the_page_says(run, tmp_path):
    import onnxruntime

    import ddpg_jax as dj

    dj.export_policy(run.directory, to="onnx", out=tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "policy.onnx")
    assert session.get_modelmeta().custom_metadata_map["algorithm"] == "ddpg"
