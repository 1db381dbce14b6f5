"""SDXL in float16: the nodes kept in float32, and the decoder that overflows without them."""

from dataclasses import replace

import onnx_ir as ir
import pytest

from benchmarks.harness.diffusers_baseline import psnr
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
from stepwise.families import FAMILIES
from stepwise.local import LocalPipeline
from tests.unit.export.fp16.test_convert import evaluate, relative, run, scale, small

SDXL = FAMILIES["sdxl"]
FLOOR_DB = 35.0
PROMPT = "a large red star in the top left on a white background"
SIZES = [{}, {"height": 80, "width": 48}]


def target(repository, checkpoints):
    return Target(open_checkpoint(checkpoints["sdxl"], SDXL), repository, "sdxl")


@pytest.fixture(scope="module")
def single(families, checkpoints):
    return target(families, checkpoints)


@pytest.fixture(scope="module")
def half(halves, checkpoints):
    return replace(target(halves, checkpoints), precision="fp16")


@pytest.fixture(scope="module")
def feeds(single):
    return rehearse(single.checkpoint, VARIED)


@pytest.mark.parametrize(("family", "steps"), [("sdxl", 12), ("sdxl_turbo", 4)])
def test_half_pictures_match_single_precision(single, half, family, steps):
    for seed, size in enumerate(SIZES):
        expected, got = (
            LocalPipeline(where.repository, family).generate(
                PROMPT, seed=seed, steps=steps, **size
            )[0]
            for where in (single, half)
        )
        print(f"{family} {size}: {psnr(got, expected):.1f} dB, {FLOOR_DB:g}")
        assert psnr(got, expected) >= FLOOR_DB


@pytest.mark.parametrize("component", SDXL.components, ids=lambda c: c.name)
def test_half_graphs_are_close_in_true_float16(single, half, feeds, component):
    paths = [where.version(component) / GRAPH for where in (single, half)]
    kinds = {v.dtype for v in ir.load(paths[1]).graph.initializers.values()}
    assert ir.DataType.FLOAT16 in kinds
    feed = small(feeds[component.name][0])
    for expected, got in zip(run(paths[0], feed), evaluate(paths[1], feed), strict=True):
        print(f"{component.name}: {relative(got, expected):.1e}, {TOLERANCE:g}")
        assert relative(got, expected) <= TOLERANCE


def test_a_decoder_that_overflows_stays_in_single_precision(single, feeds, tmp_path):
    """Scales weights to those of SDXL's real decoder, which gives black pictures in float16."""
    graph, keep = single.version(SDXL.decoder) / GRAPH, family_export("sdxl").keep("vae_decoder")
    scaled = scale(graph, "*.up_blocks.1.upsamplers.*", 2e4, tmp_path / "scaled.onnx")
    feed = small(feeds["vae_decoder"][0])
    (expected,) = run(scaled, feed)
    check_ranges(scaled, keep, [feed])
    (got,) = evaluate(write_half(scaled, keep, tmp_path), feed)
    print(f"{psnr(got, expected):.1f} dB, {FLOOR_DB:g}")
    assert psnr(got, expected) >= FLOOR_DB
    with pytest.raises(PrecisionError, match=r"vae_decoder: .* reaches .*65504"):
        check_ranges(scaled, Keep("vae_decoder", ()), [feed])


def test_modules_kept_in_float32_exist(single):
    graph = ir.load(single.version(SDXL.denoiser) / GRAPH).graph
    modules = {module_of(node) for node in graph}
    kept = family_export("sdxl").keep("unet").rows
    named = [row.module for row in kept if "*" not in row.module]
    assert named
    assert set(named) <= modules
