"""EasyAnimate in float16: its accuracy, and the float32 nodes that prevent overflow."""

from dataclasses import replace

import onnx_ir as ir
import pytest

from stepwise.description.graph_files import GRAPH
from stepwise.export.errors import PrecisionError
from stepwise.export.families import family_export
from stepwise.export.families.base import Keep
from stepwise.export.fp16.convert import write_half
from stepwise.export.fp16.fp16_pass import TOLERANCE
from stepwise.export.fp16.range_check import check_ranges
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.onnx.module_names import module_of
from stepwise.export.preflight.smoke_test import VARIED, rehearse
from stepwise.export.repository.layout import Target
from stepwise.families.easyanimate import EASYANIMATE_I2V
from tests.unit.export.fp16.test_convert import evaluate, relative, run, scale

NAMES = [component.name for component in EASYANIMATE_I2V.components]
# The module to scale until it overflows like the real model's, the factor, and the float32 rows of
# the failing case.
KEEP = family_export("easyanimate_i2v").keep
SCALED = {
    "qwen": ("*.down_proj", 1e7, ()),
    "vae_decoder": ("decoder.up_blocks.1.upsampler.conv", 1e6, ()),
    "vae_encoder": ("encoder.down_blocks.1.downsampler.conv", 1e6, ()),
}


@pytest.fixture(scope="module")
def single(videos, checkpoints):
    checkpoint = open_checkpoint(checkpoints["easyanimate_i2v"], EASYANIMATE_I2V)
    return Target(checkpoint, videos, "easyanimate_i2v")


@pytest.fixture(scope="module")
def half(single, half_videos):
    return replace(single, repository=half_videos, precision="fp16")


@pytest.fixture(scope="module")
def feeds(single):
    return rehearse(single.checkpoint, replace(VARIED, prompts=VARIED.prompts[:1], steps=1))


def graph(where, name):
    components = {c.name: c for c in where.checkpoint.family.components}
    return where.version(components[name]) / GRAPH


def small(feed):
    """Keeps only the first 24 tokens, so that the reference evaluator needs only seconds."""
    return {
        name: value[:, :24] if name in ("ids", "attention_mask") else value
        for name, value in feed.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_half_graphs_are_close(single, half, feeds, name):
    kinds = {v.dtype for v in ir.load(graph(half, name)).graph.initializers.values()}
    assert ir.DataType.FLOAT16 in kinds
    for feed in feeds[name][:2]:
        pairs = zip(run(graph(single, name), feed), run(graph(half, name), feed), strict=True)
        furthest = max(relative(got, expected) for expected, got in pairs)
        print(f"{name}: {furthest:.1e}, {TOLERANCE:g}")
        assert furthest <= TOLERANCE


def test_the_text_encoder_is_close_in_true_float16(single, half, feeds):
    feed = small(feeds["qwen"][0])
    ((expected,), (got,)) = (run(graph(single, "qwen"), feed), evaluate(graph(half, "qwen"), feed))
    print(f"{relative(got, expected):.1e}, {TOLERANCE:g}")
    assert relative(got, expected) <= TOLERANCE


@pytest.mark.parametrize("name", SCALED)
def test_nodes_that_overflow_stay_in_single_precision(single, feeds, tmp_path, name):
    module, factor, left = SCALED[name]
    scaled = scale(graph(single, name), module, factor, tmp_path / "scaled.onnx")
    feed = feeds[name][0]
    check_ranges(scaled, KEEP(name), [feed])
    (tmp_path / "half").mkdir()
    got = run(write_half(scaled, KEEP(name), tmp_path / "half"), feed)
    distance = relative(got[0], run(scaled, feed)[0])
    print(f"{name}: {distance:.1e}, {TOLERANCE:g}")
    assert distance <= TOLERANCE
    with pytest.raises(PrecisionError, match=rf"{name}: .* where float16 ends"):
        check_ranges(scaled, Keep(name, left), [feed])


def test_attention_scores_of_the_text_encoder_stay_in_single_precision(half):
    """Qwen's biases make the scores exceed the range of float16."""
    model = ir.load(graph(half, "qwen"))
    products = [
        node
        for node in model.graph
        if node.op_type == "MatMul" and module_of(node).endswith("self_attn")
    ]
    assert len(products) == 4
    assert {node.outputs[0].dtype for node in products} == {ir.DataType.FLOAT}


@pytest.mark.parametrize("name", NAMES)
def test_modules_kept_in_float32_exist(single, name):
    nodes = list(ir.load(graph(single, name)).graph)
    modules = {module_of(node) for node in nodes}
    named = {row.module for row in KEEP(name).rows if "*" not in row.module}
    # Patterns of layer numbers, not names of modules.
    named -= {"model.layers.?", "model.layers.??"}
    assert named <= modules, named - modules


@pytest.mark.parametrize("name", ["vae_decoder", "vae_encoder"])
def test_sums_of_the_residual_stream_stay_in_single_precision(half, name):
    """Each residual block has one sum; sums of a convolution over frames are in its own module."""
    sums = {
        module_of(node): node.outputs[0].dtype
        for node in ir.load(graph(half, name)).graph
        if node.op_type == "Add" and module_of(node).split(".")[-2:-1] == ["convs"]
    }
    assert len(sums) >= 5
    assert set(sums.values()) == {ir.DataType.FLOAT}
