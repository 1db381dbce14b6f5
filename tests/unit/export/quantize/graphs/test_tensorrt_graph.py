"""Quantized graphs built by TensorRT's builder; ONNX Runtime checks their arithmetic."""

import onnx
import pytest

from stepwise.export.families import family_export
from stepwise.export.quantize.graphs.kernel_report import FLOAT, share, table, tensorrt_kernels
from stepwise.export.quantize.graphs.tensorrt_graph import write
from stepwise.export.tensorrt.builder import build
from stepwise.export.tensorrt.profiles import Profile
from tests.conftest import further
from tests.unit.export.quantize.graphs.test_onnxruntime_graph import distance

RTX = "tensorrt-rtx"
KEEP = family_export("sdxl").keep("unet")
# Least share of quantized layers that get a kernel of the planned type.
FLOOR = 0.95
# Signal to noise of the UNet's output, in decibels.
FLOORS = {(8, 8, 64): 30.0, (4, 8, 32): 29.0, (4, 8, 64): 29.0}
SIZES = {"batch": (1, 2, 16), "height": (10, 16, 24), "width": (10, 16, 24), "text": (20, 20, 20)}


@pytest.fixture(
    scope="module",
    params=[(8, 8, 64), (4, 8, 64), further((4, 8, 32))],
    ids=lambda bits: "w{}a{} of {}".format(*bits),
)
def written(request, float_graph, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    return request.param, write(float_graph, recipe(*request.param), KEEP, folder)


def profile(path):
    """The input shapes at which the miniature is served."""
    shapes = {}
    for value in onnx.load(path).graph.input:
        dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ends = zip(*(SIZES.get(dim, (dim,) * 3) for dim in dims), strict=True)
        shapes[value.name] = Profile(*ends)
    return shapes


def test_outputs_are_close_to_torch(written, drawn):
    bits, path = written
    found = distance(path, drawn.calls)
    print(f"{found:.1f} dB, {FLOORS[bits]:g}")
    assert found >= FLOORS[bits]


@pytest.mark.parametrize("capability", ["8.9", further("8.0")])
def test_layers_get_their_planned_kernels(written, recipe, drawn, capability):
    bits, path = written
    built = build(RTX, path, [profile(path)], capability)
    found = tensorrt_kernels(built.kernels, recipe(*bits).plan)
    print(table(found))
    assert sum(kernel.planned != FLOAT for kernel in found) == len(drawn.layers) - 2
    print(f"{share(found):.3f}, {FLOOR}")
    assert share(found) >= FLOOR


def test_layers_left_in_float_are_reported(float_graph, recipe, tmp_path):
    path = write(float_graph, recipe(16, 16), KEEP, tmp_path)
    built = build(RTX, path, [profile(path)], "8.9")
    found = tensorrt_kernels(built.kernels, recipe(8, 8).plan)
    assert share(found) == 0
    assert "time_embedding.linear_1: float, where W8A8" in table(found)
