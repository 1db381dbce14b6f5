"""Runs a graph on the CPU with only its weights and live activations in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
# The inputs of every call, by component.
Feeds = Mapping[str, Sequence[Feed]]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph without folding, fusing or packing, which would copy weights."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Activations are freed at once, and each node runs as soon as it can.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
