import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from stepwise.description.graph_files import GRAPH
from stepwise.description.manifest import Manifest
from stepwise.export.errors import EngineError
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.repository.component_config import engine_config
from stepwise.export.repository.layout import Target
from stepwise.export.tensorrt.build import FILE, build_engines, read, table
from stepwise.export.tensorrt.builder import build
from stepwise.export.tensorrt.libraries import compute_capability, load
from stepwise.export.tensorrt.profiles import Profile, profiles
from stepwise.families import FAMILIES
from stepwise.request.response import shrink
from tests.conftest import further
from tests.support.paths import ROOT, STEPWISE

MINIATURE = ROOT / "miniatures" / "sd3"
SD3, SDXL = FAMILIES["sd3"], FAMILIES["sdxl"]
RTX = "tensorrt-rtx"


def target(repository, precision="fp32"):
    return Target(open_checkpoint(MINIATURE, SD3), Path(repository), "sd3", precision)


@pytest.fixture(scope="module", params=["fp16", further("fp32")])
def exported(request, tmp_path_factory):
    """An export of the miniature in either precision."""
    source = request.getfixturevalue({"fp32": "families", "fp16": "halves"}[request.param])
    others = shutil.ignore_patterns("sdxl*", "easyanimate*")
    place = tmp_path_factory.mktemp("engines") / "repository"
    return target(shutil.copytree(source, place, ignore=others), request.param)


@pytest.mark.parametrize("capability", ["8.9", further("8.0")])
def test_every_component_builds(exported, capability):
    engines = build_engines(exported, RTX, capability)
    print(table(engines))
    manifest = Manifest.read(exported.folder)
    assert [engine.component for engine in engines] == [c.name for c in SD3.components]
    assert engines == read(exported.folder)
    for engine in engines:
        path = exported.repository / engine.file
        assert path.stat().st_size == engine.bytes
        assert engine.library == "tensorrt_rtx"
        assert engine.version == load(RTX).__version__
        assert engine.compute_capability == capability
        assert engine.graph == manifest.graphs[engine.component]
        assert engine.precision == exported.precision
        assert engine.all_layers > 10
        assert (engine.half_layers > 5) == (exported.precision == "fp16"), engine.layers
    stamps = [(exported.repository / engine.file).stat().st_mtime_ns for engine in engines]
    assert build_engines(exported, RTX, capability) == engines
    assert stamps == [(exported.repository / e.file).stat().st_mtime_ns for e in engines]


@pytest.fixture(scope="module", params=["fp16", further("fp32")])
def sdxl(request, checkpoints, tmp_path_factory):
    """An export of the SDXL checkpoint in either precision."""
    source = request.getfixturevalue({"fp32": "families", "fp16": "halves"}[request.param])
    others = shutil.ignore_patterns("sd3*", "easyanimate*", "sdxl_turbo*")
    place = tmp_path_factory.mktemp("sdxl") / "repository"
    folder = shutil.copytree(source, place, ignore=others)
    return Target(open_checkpoint(checkpoints["sdxl"], SDXL), folder, "sdxl", request.param)


@pytest.fixture(params=[slice(2, 4), further(slice(None))], ids=["two", "all"])
def buckets(request, sdxl):
    """The number of buckets in the manifest: two of the checkpoint's, or all."""
    manifest = Manifest.read(sdxl.folder)
    chosen = manifest.buckets[request.param]
    replace(manifest, buckets=chosen).write(sdxl.folder)
    yield len(chosen)
    manifest.write(sdxl.folder)


@pytest.mark.parametrize("capability", ["8.9", further("8.0")])
def test_every_component_of_sdxl_builds_for_every_bucket(sdxl, buckets, capability):
    engines = build_engines(sdxl, RTX, capability)
    print(table(engines))
    assert [engine.component for engine in engines] == [c.name for c in SDXL.components]
    # The decoder has one more profile, for previews.
    counts = [1, 1, buckets, buckets + 1]
    assert [len(engine.profiles) for engine in engines] == counts
    for engine in engines:
        assert (engine.half_layers > 5) == (sdxl.precision == "fp16"), engine.layers


def test_each_bucket_has_its_own_profile_and_previews_share_one(families, checkpoints):
    where = Target(open_checkpoint(checkpoints["sdxl"], SDXL), families, "sdxl")
    manifest = Manifest.read(where.folder)
    found = profiles(where, manifest, SDXL.denoiser)
    sides = [(height // 4, width // 4) for height, width in manifest.buckets]
    assert [profile["latents"] for profile in found] == [
        Profile((1, 4, *side), (2, 4, *side), (16, 4, *side)) for side in sides
    ]
    assert {profile["encoder_hidden_states"] for profile in found} == {
        Profile((1, 20, 160), (2, 20, 160), (16, 20, 160))
    }
    *pictures, previews = profiles(where, manifest, SDXL.decoder)
    assert [profile["latents"].maximum for profile in pictures] == [(4, 4, *side) for side in sides]
    for height, width in sides:
        small = shrink(np.zeros((4, height, width), np.float32)).shape[1:]
        ends = zip(
            previews["latents"].minimum[2:], small, previews["latents"].maximum[2:], strict=True
        )
        assert all(least <= side <= greatest for least, side, greatest in ends)


def test_the_triton_config_lists_all_profiles_of_an_engine():
    shapes = {"latents": (-1, 4, -1, -1), "image": (-1, -1, -1, 3)}
    several = engine_config(SDXL.decoder, "sdxl", shapes, profiles=3)
    assert list(several.instance_group[0].profile) == ["0", "1", "2"]
    assert not engine_config(SDXL.decoder, "sdxl", shapes, profiles=1).instance_group[0].profile


def test_profiles_cover_all_allowed_requests(repository):
    where = target(repository)
    manifest = Manifest.read(where.folder)
    found = {c.name: profiles(where, manifest, c) for c in SD3.components}
    assert found["t5"] == ({"ids": Profile((1, 20), (2, 20), (8, 20))},)
    # 40 tokens: CLIP's 20, then T5's 20.
    transformer = {
        "latents": Profile((1, 16, 4, 4), (2, 16, 8, 8), (16, 16, 12, 12)),
        "timestep": Profile((1,), (2,), (16,)),
        "encoder_hidden_states": Profile((1, 40, 160), (2, 40, 160), (16, 40, 160)),
        "pooled_projections": Profile((1, 144), (2, 144), (16, 144)),
    }
    assert found["transformer"] == (transformer,)
    # The minimum is a quarter of the least side, because previews are decoded at that size.
    latents = Profile((1, 16, 1, 1), (2, 16, 8, 8), (4, 16, 12, 12))
    assert found["vae_decoder"] == ({"latents": latents},)


def test_the_triton_config_has_the_dims_of_the_engine(repository):
    where, decoder, video = target(repository), SD3.decoder, SD3.encoders[0]
    manifest = Manifest.read(where.folder)
    shapes = {
        c.name: build(RTX, where.version(c) / GRAPH, profiles(where, manifest, c), "8.9").shapes
        for c in (decoder, video)
    }
    config = engine_config(decoder, "sd3", shapes["vae_decoder"], profiles=1)
    assert (config.name, config.backend, config.max_batch_size) == (
        "sd3_vae_decoder", "tensorrt", 4,
    )  # fmt: skip
    assert [list(tensor.dims) for tensor in config.input] == [[16, -1, -1]]
    assert [list(tensor.dims) for tensor in config.output] == [[-1, -1, 3]]
    config = engine_config(video, "sd3", shapes["clip_l"], profiles=1)
    assert [list(tensor.dims) for tensor in config.input] == [[20], [1]]
    assert [list(tensor.dims) for tensor in config.output] == [[20, 64], [64]]
    served = where.model(video) / "config.pbtxt"
    onnxruntime = text_format.Parse(served.read_text(), ModelConfig())
    assert [t.name for t in config.output] == [t.name for t in onnxruntime.output]
    assert [t.data_type for t in config.input] == [t.data_type for t in onnxruntime.input]


def test_an_unsupported_compute_capability_is_named(repository):
    where, video = target(repository), SD3.encoders[0]
    shapes = profiles(where, Manifest.read(where.folder), video)
    with pytest.raises(EngineError, match=r"capability 3\.5; allowed are .*8\.9.*12\.0"):
        build(RTX, where.version(video) / GRAPH, shapes, "3.5")


def test_a_graph_that_cannot_be_parsed_is_named(tmp_path):
    (tmp_path / GRAPH).write_bytes(b"no graph")
    with pytest.raises(EngineError, match=f"{GRAPH} cannot be read by tensorrt-rtx"):
        build(RTX, tmp_path / GRAPH, [], "8.9")


def test_without_a_gpu_only_tensorrt_for_rtx_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compute_capability(RTX, None) == "8.9"
    assert compute_capability(RTX, "12.0") == "12.0"
    with pytest.raises(EngineError, match="nvidia-smi finds none"):
        compute_capability("tensorrt", None)


def test_tensorrt_builds_for_the_gpu_of_this_machine(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 9.0\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compute_capability("tensorrt", None) == "9.0"
    assert compute_capability(RTX, None) == "9.0"
    assert compute_capability(RTX, "8.9") == "8.9"
    with pytest.raises(EngineError, match="compute capability 9.0, not 8.9"):
        compute_capability("tensorrt", "8.9")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "tensorrt"], "needs the Python module tensorrt"),
        (["--compute-capability", "8.9"], "omit it or give a --target"),
        (["--target", RTX, "--compute-capability", "Ada"], "should look like 8.9"),
    ],
)
def test_an_impossible_build_is_refused_before_the_export(tmp_path, arguments, words):
    # Simulates a machine without TensorRT.
    (tmp_path / "tensorrt.py").write_text("raise ImportError('not installed')")
    command = [STEPWISE, "export", "sd3", "--checkpoint", str(MINIATURE)]
    command += ["--repository", str(tmp_path / "repository"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 or (done.returncode, arguments[1]) == (1, "tensorrt")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "repository").exists()


def test_records_are_readable_json(exported):
    build_engines(exported, RTX, "8.9")
    fields = json.loads((exported.folder / FILE).read_text())
    assert fields[0]["profiles"][0]["ids"]["minimum"] == [1, 20]
    assert sum(sum(kinds.values()) for kinds in fields[0]["layers"].values()) > 10
