"""Stock quantizers with their best settings, as baselines for MixDQ."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as modelopt
import numpy.typing as npt
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from stepwise.description.spec import Component
from stepwise.export.modules.exportable import Exportable
from stepwise.export.quantize.layers import Layer

Feed = Mapping[str, npt.NDArray[Any]]

# nvidia-modelopt's names of its two INT8 methods.
DEFAULT, SMOOTHQUANT = "INT8_DEFAULT_CFG", "INT8_SMOOTHQUANT_CFG"
# Quantizing operators that only move values fails on this graph: "shared mode is not supported".
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def naive(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers without MixDQ's knowledge of them: no known first token, no split shortcut."""
    return tuple(replace(layer, split=None, begins_alike=False) for layer in layers)


class _Calls(CalibrationDataReader):
    """Yields a graph's inputs one call at a time."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next inputs; None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def stock(graph: Path, feeds: Iterable[Feed], folder: Path) -> Path:
    """Quantize a float32 graph with onnxruntime.quantization: static W8A8, as advised for x86.

    Q/DQ pairs around all products, uint8 activations with min-max ranges over ``feeds``, int8
    weights with a scale per channel.
    """
    prepared, path = folder / "prepared.onnx", folder / "model.onnx"
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(path),
        _Calls(feeds),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=list(_PRODUCTS),
    )
    prepared.unlink()
    return path


def fake_quantize(unet: nn.Module, config: str, draw: Callable[[], object]) -> None:
    """Quantize a torch UNet in place with nvidia-modelopt's ``config``.

    ``draw`` makes pictures with it to calibrate ranges.
    """
    modelopt.quantize(unet, getattr(modelopt, config), forward_loop=lambda _: draw())


def write_fake_quantized(
    module: Exportable, component: Component, sizes: Mapping[str, int], path: Path
) -> None:
    """Write the graph of a module from ``fake_quantize``, with nvidia-modelopt's Q/DQ nodes.

    Uses torch's older exporter, because the newer one does not support these nodes. Weights stay
    float.
    """
    tensors = (*component.inputs, *component.outputs)
    torch.onnx.export(
        module,
        module.example(sizes),
        str(path),
        input_names=[tensor.name for tensor in component.inputs],
        output_names=[tensor.name for tensor in component.outputs],
        dynamic_axes={
            tensor.name: {n: dim for n, dim in enumerate(tensor.dims) if isinstance(dim, str)}
            for tensor in tensors
        },
        opset_version=20,
        dynamo=False,
    )
