"""A policy as an ONNX graph, `obs [N, *O] -> action [N, *A]`, built from its steps with the operators of opset 17.

The network computes in float32; bounds are put on in float64, as float32 would round them, and leave them.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ddpg_jax.runs.export.steps import Step
from ddpg_jax.types import EnvSpec, HostArray

_OPSET, _IR = 17, 8
_DTYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "uint8": TensorProto.UINT8}


class _Graph:
    """Nodes and constants while they are put together; `x` is the name of the last result.

    Args:
      arrays: of the policy, by name.
      obs: name of the input.
    """

    def __init__(self, arrays: Mapping[str, HostArray], obs: str) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.x = obs
        self._arrays = arrays

    def constant(self, value: Any, name: str = "") -> str:
        """The name of a constant."""
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def array(self, name: str) -> str:
        """The name of an array of the policy."""
        return self.constant(self._arrays[name], name)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node; its result is the new `x`."""
        self.x = f"x_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.x], **attributes))
        return self.x

    def step(self, step: Step) -> None:
        """The nodes of a step."""
        op, x = step["op"], self.x
        if op == "dense":
            self._dense(step)
        elif op == "normalize":
            deviation = np.sqrt(self._arrays[step["variance"]]) + np.float32(step["epsilon"])
            self.add("Div", self.add("Sub", x, self.array(step["mean"])), self.constant(deviation))
            if "clip" in step:
                limit = np.float32(step["clip"])
                self.add("Clip", self.x, self.constant(-limit), self.constant(limit))
        elif op == "layer_norm":
            arrays = [self.array(step[name]) for name in ("scale", "bias")]
            self.add("LayerNormalization", x, *arrays, axis=-1, epsilon=step["epsilon"])
        elif op == "batch_norm":
            deviation = np.sqrt(self._arrays[step["variance"]] + np.float32(step["epsilon"]))
            scaled = self._arrays[step["scale"]] / deviation
            self.add("Mul", self.add("Sub", x, self.array(step["mean"])), self.constant(scaled))
            self.add("Add", self.x, self.array(step["bias"]))
        elif op == "rms_norm":
            mean = self.add("ReduceMean", self.add("Mul", x, x), axes=[-1], keepdims=1)
            root = self.add("Sqrt", self.add("Add", mean, self.constant(np.float32(step["epsilon"]))))
            self.add("Mul", self.add("Div", x, root), self.array(step["scale"]))
        elif op == "residual":
            for each in step["steps"]:
                self.step(each)
            self.add("Add", x, self.x)
        elif op == "blend":
            for each in step["steps"]:
                self.step(each)
            share = self._arrays[step["share"]] * np.float32(step["by"])
            self.add("Add", x, self.add("Mul", self.add("Sub", self.x, x), self.constant(share)))
        elif op == "scale":
            self.add("Mul", x, self.constant(self._arrays[step["scale"]] * np.float32(step["by"])))
        elif op == "append":
            self.add("Pad", x, self.constant(np.array([0, 0, 0, 1])), self.constant(np.float32(step["value"])))
        elif op == "add":
            self.add("Add", x, self.constant(np.float32(step["value"])))
        elif op == "unit":
            length = self.add("ReduceL2", x, axes=[-1], keepdims=1)
            self.add("Div", x, self.add("Max", length, self.constant(np.float32(1e-8))))
        elif op == "silu":
            self.add("Mul", x, self.add("Sigmoid", x))
        else:
            self.add({"relu": "Relu", "elu": "Elu", "tanh": "Tanh"}[op], x)

    def _dense(self, step: Step) -> None:
        kernel = self._arrays[step["kernel"]]
        if step.get("factors") == "bfloat16":
            rounded = self.add("Cast", self.x, to=TensorProto.BFLOAT16)
            self.add("Cast", rounded, to=TensorProto.FLOAT)
            kernel = kernel.astype(ml_dtypes.bfloat16).astype(np.float32)
        bias = [self.array(step["bias"])] if "bias" in step else []
        self.add("Gemm", self.x, self.constant(kernel, step["kernel"]), *bias)

    def put_in_units(self, spec: EnvSpec, example: HostArray) -> None:
        """From [-1, 1] to the environment's units, as in `equations.actions.to_units`."""
        low, high = (self.constant(np.array(bound, np.float64)) for bound in (spec.action_low, spec.action_high))
        one, half = self.constant(np.float64(1.0)), self.constant(np.float64(0.5))
        self.add("Cast", self.x, to=TensorProto.DOUBLE)
        upper = self.add("Mul", self.add("Add", self.x, one), half)
        below = self.add("Mul", low, self.add("Sub", one, upper))
        between = self.add("Add", below, self.add("Mul", high, upper))
        self.add("Min", self.add("Max", between, low), high)
        self.add("Cast", self.x, to=_DTYPES[example.dtype.name])
        if example.ndim != 2:
            self.add("Reshape", self.x, self.constant(np.array([-1, *example.shape[1:]], np.int64)))


def to_onnx(
    steps: list[Step],
    arrays: Mapping[str, HostArray],
    spec: EnvSpec,
    example: HostArray,
    metadata: Mapping[str, str],
) -> bytes:
    """The policy as bytes of an ONNX model, which the checker of onnx has passed.

    Args:
      steps: from `actor_steps`.
      arrays: by name.
      spec: of the environment.
      example: actions in the environment's units, `[N, *A]`, for their shape and dtype.
      metadata: kept as `metadata_props`.
    """
    graph = _Graph(arrays, "obs")
    if spec.obs_dtype != "float32":
        graph.add("Cast", graph.x, to=TensorProto.FLOAT)
    for step in steps:
        graph.step(step)
    graph.put_in_units(spec, example)
    graph.nodes.append(helper.make_node("Identity", [graph.x], ["action"]))
    obs = helper.make_tensor_value_info("obs", _DTYPES[spec.obs_dtype], ["batch", *spec.obs_shape])
    action = helper.make_tensor_value_info("action", _DTYPES[example.dtype.name], ["batch", *example.shape[1:]])
    whole = helper.make_graph(graph.nodes, "policy", [obs], [action], list(graph.constants.values()))
    model = helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="ddpg_jax"
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run_onnx(content: bytes, obs: HostArray) -> HostArray:
    """The actions of such bytes by onnxruntime on the CPU, `[N, *O] -> [N, *A]`."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["action"], {"obs": obs})[0])
