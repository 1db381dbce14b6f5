"""The number of threads of a small graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stepwise.export.onnx import threads


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        ({1: 1.0, 2: 1.0}, 1),
        ({1: 1.09, 2: 1.0}, 1),
        ({1: 1.12, 2: 1.0}, 2),
        ({1: 4.0, 2: 2.1, 4: 1.05, 8: 1.0, 12: 1.3}, 4),
        ({1: 1.0, 2: 2.0, 4: 3.0}, 1),
    ],
)
def test_the_fewest_threads_that_are_about_as_fast_are_chosen(seconds, count):
    assert threads.fewest({n: (lambda time=time: time) for n, time in seconds.items()}) == count


def test_one_slow_round_does_not_decide():
    slow = iter([50.0, 1.0, 1.0, 60.0, 1.0])
    assert threads.fewest({1: lambda: next(slow), 2: lambda: 1.0}) == 1


def test_a_tiny_graph_runs_in_one_thread(tmp_path):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    assert threads.choose(tmp_path, {"x": np.zeros(4, np.float32)}) == 1


def test_a_large_graph_is_not_measured(tmp_path):
    with (tmp_path / "model.onnx.data").open("wb") as file:
        file.truncate(threads.LARGEST_BYTES + 1)
    assert threads.choose(tmp_path, {}) == threads.ALL
