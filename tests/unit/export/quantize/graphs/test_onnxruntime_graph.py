"""Quantized graphs run in ONNX Runtime, compared with torch in float32."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.graphs.kernel_report import FLOAT, onnxruntime_kernels, share, table
from stepwise.export.quantize.graphs.onnxruntime_graph import write
from stepwise.export.quantize.layers import Group, Layer
from stepwise.export.quantize.plan import Entry

# Signal to noise of the UNet's output, in decibels.
FLOORS = {
    (8, 8, 64): 32.0,
    (7, 8, 64): 28.0,
    (4, 16, 64): 30.0,
    (4, 8, 32): 30.0,
    (4, 8, 64): 30.0,
    (4, 8, 128): 30.0,
}


def run(path, feed):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def decibels(expected, got):
    return 20 * np.log10(np.linalg.norm(expected) / (np.linalg.norm(got - expected) or 1e-30))


def distance(path, calls):
    """Signal to noise of a graph over recorded calls."""
    expected, got = zip(*[(output, run(path, feed)) for feed, output in calls], strict=True)
    return decibels(np.stack(expected), np.stack(got))


@pytest.fixture(scope="module", params=FLOORS, ids=lambda bits: "w{}a{} of {}".format(*bits))
def written(request, float_graph, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    return request.param, write(float_graph, recipe(*request.param), folder)


def test_a_plan_of_floats_changes_nothing(float_graph, recipe, drawn, tmp_path):
    path = write(float_graph, recipe(16, 16), tmp_path)
    found = distance(path, drawn.calls)
    print(f"{found:.1f} dB, 100")
    assert found >= 100


def test_outputs_are_close_to_torch(written, drawn):
    bits, path = written
    found = distance(path, drawn.calls)
    print(f"{found:.1f} dB, {FLOORS[bits]:g}")
    assert found >= FLOORS[bits]


def test_the_file_is_little_larger_than_its_weights(written, drawn):
    (weight_bits, *_), path = written
    sizes = [(int(np.prod(layer.shape)), layer.is_linear) for layer in drawn.layers]
    least = sum(n * (weight_bits if linear else 8) / 8 for n, linear in sizes)
    ratio = path.stat().st_size / least
    print(f"{path.stat().st_size:,} bytes, {ratio:.3f} times the weights alone, at most 1.3")
    assert 1 < ratio < 1.3


def test_every_layer_gets_its_planned_kernel(written, recipe, drawn):
    bits, path = written
    found = onnxruntime_kernels(path, recipe(*bits).plan, drawn.calls[0][0])
    print(table(found))
    assert [kernel.layer for kernel in found] == [layer.name for layer in drawn.layers]
    assert sum(kernel.planned != FLOAT for kernel in found) == len(drawn.layers) - 2
    assert share(found) == 1


def test_old_runtimes_can_load_the_graph(written):
    """ONNX Runtime 1.19, part of Triton 24.10, has no kernel that reads INT4."""
    model = ir.load(written[1])
    assert model.opset_imports[""] == 18
    stored = {value.dtype for value in model.graph.initializers.values()}
    print(stored)
    assert ir.DataType.INT4 not in stored


def test_layers_left_in_float_are_reported(float_graph, recipe, drawn, tmp_path):
    path = write(float_graph, recipe(16, 16), tmp_path)
    found = onnxruntime_kernels(path, recipe(8, 8).plan, drawn.calls[0][0])
    assert share(found) == 0
    assert "time_embedding.linear_1: float, where W8A8" in table(found)


def test_other_rows_of_a_batch_change_no_picture(written, drawn):
    _, path = written
    feed, _ = drawn.calls[1]
    others = {name: np.concatenate([values[:1], -3 * values[1:]]) for name, values in feed.items()}
    assert np.array_equal(run(path, feed)[0], run(path, others)[0])


def test_a_picture_is_the_same_alone_and_in_a_batch(written, drawn):
    """Up to the rounding of floats, which may move a value to the next level."""
    (_, path), (feed, expected) = written, drawn.calls[1]
    alone = run(path, {name: values[:1] for name, values in feed.items()})
    found, noise = decibels(alone, run(path, feed)[:1]), decibels(expected[:1], alone)
    print(f"{found:.1f} dB, {noise:.1f}")
    assert found >= noise


def test_every_size_runs(written):
    _, path = written
    generator = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    sizes = {"batch": 3, "height": 10, "width": 24, "text": 40}
    feed = {
        value.name: generator.standard_normal([sizes.get(d, d) for d in value.shape], np.float32)
        for value in session.get_inputs()
    }
    (output,) = session.run(None, feed)
    assert output.shape == feed["latents"].shape
    assert np.isfinite(output).all()


def outlier(drawn, factor=100.0):
    """A first token that is as large an outlier as the real CLIP's."""
    known = drawn.first
    outputs = {name: factor * output for name, output in known.outputs.items()}
    return replace(known, embedding=factor * known.embedding, outputs=outputs)


def probed(path, names):
    """Write a copy of a graph that also outputs the named nodes' values."""
    model = ir.load(path)
    for node in model.graph:
        if node.name in names:
            model.graph.outputs.append(node.outputs[0])
    ir.save(model, path.with_name("probed.onnx"))
    return path.with_name("probed.onnx")


def test_the_known_output_is_used_in_rows_that_start_with_the_first_token(
    float_graph, recipe, drawn, tmp_path
):
    first = outlier(drawn)
    path = write(float_graph, replace(recipe(8, 8), first=first), tmp_path)
    names = [f"{layer.name}/Where" for layer in drawn.layers if layer.begins_alike]
    session = onnxruntime.InferenceSession(probed(path, names))
    feed = {name: values[:3].copy() for name, values in drawn.calls[0][0].items()}
    # The second row has no prompt; the third starts with another token.
    text = feed["encoder_hidden_states"]
    text[:2, 0], text[1] = first.embedding, 0.0
    for name, output in zip(names, session.run(names, feed), strict=True):
        known = first.outputs[name.removesuffix("/Where")]
        assert np.array_equal(output[0, 0], known)
        assert not output[1].any()
        own = drawn.first.outputs[name.removesuffix("/Where")]
        found = decibels(own, output[2, 0])
        print(f"{name}: {found:.1f} dB, 30")
        assert found >= 30


def test_a_plan_for_another_model_is_refused(float_graph, recipe, drawn, tmp_path):
    other = replace(recipe(8, 8), layers=drawn.layers[1:])
    with pytest.raises(QuantizationError, match="made for another model.*conv_in"):
        write(float_graph, other, tmp_path)


def test_a_graph_of_another_model_is_refused(float_graph, recipe, tmp_path):
    given = recipe(8, 8)
    more = Layer("mid_block.extra", (8, 8), Group.QUALITY)
    entries = {**given.plan.layers, more.name: Entry(8, 8)}
    plan = replace(given.plan, layers=entries)
    with pytest.raises(QuantizationError, match="has 0 products of the layer mid_block.extra"):
        write(float_graph, replace(given, layers=(*given.layers, more), plan=plan), tmp_path)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            Entry(4, 8),
            "conv_in weights of 4 bits.* of 8, .*; allowed are 7 and 8, 8 and 8, 16 and 16",
        ),
        (Entry(16, 8), "conv_in weights of 16 bits"),
        (Entry(8, 16), "conv_in weights of 8 bits and activations of 16"),
    ],
)
def test_an_entry_without_a_kernel_is_refused(float_graph, recipe, tmp_path, entry, told):
    given = recipe(8, 8)
    plan = replace(given.plan, layers={**given.plan.layers, "conv_in": entry})
    with pytest.raises(QuantizationError, match=told):
        write(float_graph, replace(given, plan=plan), tmp_path)
