import shutil
import warnings
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from benchmarks.harness.diffusers_baseline import psnr
from miniatures.captions import BY_CAPTION
from miniatures.score import score
from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import Manifest
from stepwise.export.errors import PrecisionError
from stepwise.export.families import family_export
from stepwise.export.families.base import Keep, KeepInFp32
from stepwise.export.fp16.convert import write_half
from stepwise.export.fp16.fp16_pass import TOLERANCE, halve
from stepwise.export.fp16.range_check import check_ranges, measure
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.onnx.exporter import write_graph
from stepwise.export.onnx.module_names import module_of
from stepwise.export.onnx.shapes import traced
from stepwise.export.preflight.smoke_test import VARIED, rehearse
from stepwise.export.repository.layout import Target
from stepwise.export.repository.records import is_finished
from stepwise.families import FAMILIES
from stepwise.local import LocalPipeline
from stepwise.server.check import _graph_problems
from stepwise.server.repository import exported
from tests.support.paths import ROOT

MINIATURE = ROOT / "miniatures" / "sd3"
SD3 = FAMILIES["sd3"]
COMPONENTS = {component.name: component for component in SD3.components}
KEEP = family_export("sd3").keep
FLOOR_DB = 35.0
CAPTIONS = [
    "a large red star in the top left on a white background",
    "a small blue circle in the center on a black background",
    "a large green triangle in the bottom right on a gray background",
    "a small yellow square in the top right on a black background",
]
# Weights to scale up, so that values overflow at the same places as in the real checkpoints.
# BLANKET keeps only arithmetic on integers and masks in float32, like a cast of all nodes.
SCALED = {"t5": ("*.wo", 3e3), "vae_decoder": ("*.up_blocks.2.upsamplers.*", 2e4)}
BLANKET = {
    "t5": (
        KeepInFp32("model.encoder", ("Where",)),
        KeepInFp32("*.SelfAttention", ("Add", "Div", "Log", "Mul", "Softmax")),
    ),
    "vae_decoder": (),
}


@pytest.fixture(scope="module")
def single(repository, tmp_path_factory):
    """A float32 export of the miniature that tests may change."""
    path = tmp_path_factory.mktemp("single") / "repository"
    return target(shutil.copytree(repository, path))


@pytest.fixture(scope="module")
def half(halves, tmp_path_factory):
    """A float16 repository with only the miniature."""
    path = tmp_path_factory.mktemp("half") / "repository"
    others = shutil.ignore_patterns("sdxl*", "easyanimate*")
    return replace(target(shutil.copytree(halves, path, ignore=others)), precision="fp16")


@pytest.fixture(scope="module")
def feeds(single):
    return rehearse(single.checkpoint, VARIED)


def target(repository):
    return Target(open_checkpoint(MINIATURE, SD3), Path(repository), "sd3")


def graph(where, name):
    return where.version(COMPONENTS[name]) / GRAPH


def run(path, feed):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def evaluate(path, feed):
    """Outputs in true float16; ONNX Runtime's CPU kernels compute in float32 where they can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return ReferenceEvaluator(str(path)).run(None, feed)


def relative(got, expected):
    return np.linalg.norm(got - expected.astype(float)) / np.linalg.norm(expected.astype(float))


def small(feed):
    """Crops latents to 4 x 4, so that the reference evaluator needs only seconds."""
    return {k: v[..., :4, :4] if k == "latents" else v for k, v in feed.items()}


def scale(source, module, factor, path):
    """Write a copy of a graph with the weights of matching modules multiplied by ``factor``."""
    model = ir.load(source)
    for node in model.graph:
        if node.op_type in ("MatMul", "Conv") and fnmatchcase(module_of(node), module):
            for value in node.inputs[1:]:
                if value.const_value is not None and value.dtype == ir.DataType.FLOAT:
                    scaled = value.const_value.numpy() * np.float32(factor)
                    value.const_value = ir.tensor(scaled, name=value.name)
    ir.save(model, path)
    return path


def picture(where, caption, seed, steps=12):
    process = LocalPipeline(where.repository, "sd3")
    return process.generate(caption, seed=seed, steps=steps, guidance_scale=3.0)[0]


def test_half_pictures_match_single_precision(single, half):
    for seed, caption in enumerate(CAPTIONS):
        expected, got = (picture(where, caption, seed) for where in (single, half))
        distance = psnr(expected, got)
        print(f"{caption}: {distance:.1f} dB, {FLOOR_DB:g}")
        assert distance >= FLOOR_DB
        scene = BY_CAPTION[caption]
        assert score(got, scene) == score(expected, scene)


def test_half_graphs_are_close_and_keep_their_types(single, half, feeds):
    for name, component in COMPONENTS.items():
        got = ir.load(graph(half, name)).graph
        for value, tensor in zip(
            (*got.inputs, *got.outputs), (*component.inputs, *component.outputs), strict=True
        ):
            assert value.name == tensor.name
            assert value.dtype.name.replace("FLOAT", "FP32") == tensor.dtype
        kinds = [v.dtype for v in got.initializers.values() if v.const_value.size > 1000]
        assert ir.DataType.FLOAT16 in kinds
        feed = small(feeds[name][0])
        for expected, value in zip(
            run(graph(single, name), feed), evaluate(graph(half, name), feed), strict=True
        ):
            print(f"{name}: {relative(value, expected):.1e}, {TOLERANCE:g}")
            assert relative(value, expected) <= TOLERANCE


def test_a_half_export_is_finished_and_differs_from_a_single_one(half):
    assert is_finished(half)
    assert not is_finished(replace(half, precision="fp32"))
    assert Manifest.read(half.folder).precision == "fp16"
    (pipeline,) = exported(half.repository)
    assert list(_graph_problems(pipeline)) == []


@pytest.mark.parametrize("name", SCALED)
def test_nodes_that_overflow_stay_in_single_precision(single, feeds, name, tmp_path):
    """With scaled weights, a cast of every node gives zeros; nodes kept in float32 prevent that."""
    scaled = scale(graph(single, name), *SCALED[name], tmp_path / "scaled.onnx")
    feed = small(feeds[name][0])
    (expected,) = run(scaled, feed)
    check_ranges(scaled, KEEP(name), [feed])
    (got,) = evaluate(write_half(scaled, KEEP(name), tmp_path), feed)
    print(f"{name}: {relative(got, expected):.1e}, {TOLERANCE:g}")
    assert relative(got, expected) <= TOLERANCE
    if name == "vae_decoder":
        print(f"{psnr(got, expected):.1f} dB, {FLOOR_DB:g}")
        assert psnr(got, expected) >= FLOOR_DB

    keep = Keep(name, BLANKET[name])
    with pytest.raises(PrecisionError, match=rf"{name}: node_\S+ \(\S+ in .*\) reaches .*65504"):
        check_ranges(scaled, keep, [feed])
    (blank,) = evaluate(write_half(scaled, keep, tmp_path), feed)
    assert not np.any(blank)


@pytest.mark.parametrize("pipeline", FAMILIES.values(), ids=FAMILIES)
def test_every_component_lists_its_float32_parts(pipeline):
    kept = family_export(pipeline.name).keep_in_fp32
    assert {component.name for component in pipeline.components} <= kept.keys()


def test_values_too_small_for_half_precision_are_named(single, feeds, tmp_path):
    scaled = scale(graph(single, "t5"), "*.block.1.*.q", 1e-9, tmp_path / GRAPH)
    with pytest.raises(PrecisionError, match=r"t5: node_\S+ \(MatMul in \S+q\) stays below"):
        check_ranges(scaled, KEEP("t5"), feeds["t5"])


def test_a_weight_too_large_for_half_precision_is_named(single, tmp_path):
    scaled = scale(graph(single, "t5"), "*.block.1.*.q", 1e7, tmp_path / "large.onnx")
    with pytest.raises(PrecisionError, match=r"t5: its weight \S+ holds .* where float16 ends"):
        write_half(scaled, KEEP("t5"), tmp_path)


def test_an_overflow_leaves_no_graph(single, feeds, tmp_path):
    scaled = scale(graph(single, "t5"), *SCALED["t5"], tmp_path / "scaled.onnx")
    with pytest.raises(PrecisionError, match="--precision fp32"):
        halve(scaled, Keep("t5", BLANKET["t5"]), feeds["t5"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scaled.onnx"]


@pytest.mark.parametrize("name", ["t5", "vae_decoder"])
def test_stored_weights_make_the_same_half_graph(single, name, tmp_path):
    """As in an export: weights compute in float32 but stay in the checkpoint's float16 on disk."""
    component, checkpoint = COMPONENTS[name], single.checkpoint
    sizes, folder = traced(checkpoint.sides, checkpoint.vae_scale, 20), tmp_path / "narrow"
    folder.mkdir()
    narrow = write_graph(load(checkpoint, component), component, sizes, folder, narrow=True)
    wide = graph(single, name)
    print(f"{name}: {narrow.stat().st_size / wide.stat().st_size:.2f} of float32, 0.7")
    assert narrow.stat().st_size < 0.7 * wide.stat().st_size
    halves = []
    for source in (narrow, wide):
        (tmp_path / source.parent.parent.name).mkdir(exist_ok=True)
        halves.append(ir.load(write_half(source, KEEP(name), tmp_path / source.parent.parent.name)))
    one, other = (half.graph.initializers for half in halves)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype
        assert np.array_equal(value.const_value.numpy(), other[key].const_value.numpy())


def test_weights_next_to_a_graph_stay_next_to_it(single, feeds, tmp_path, monkeypatch):
    monkeypatch.setattr("stepwise.export.onnx.exporter.LARGEST_INLINE_BYTES", 10_000)
    feed = feeds["clip_l"][0]
    expected = write_half(graph(single, "clip_l"), KEEP("clip_l"), tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 100_000
    (tmp_path / "large").mkdir()
    large = tmp_path / "large" / GRAPH
    ir.save(ir.load(graph(single, "clip_l")), large, external_data="model.onnx.data")
    assert (
        measure(large, KEEP("clip_l"), [feed])[1]
        == measure(graph(single, "clip_l"), KEEP("clip_l"), [feed])[1]
    )
    (tmp_path / "half").mkdir()
    got = write_half(large, KEEP("clip_l"), tmp_path / "half")
    for one, other in zip(run(expected, feed), run(got, feed), strict=True):
        assert np.array_equal(one, other)
