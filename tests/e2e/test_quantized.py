"""A quantized pipeline is exported from a plan and served next to its float pipeline."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.diffusers_baseline import psnr
from miniatures import prompts
from miniatures.prompts import CALIBRATION
from miniatures.score import score
from stepwise.client import Client
from stepwise.description.manifest import Manifest
from stepwise.export.checkpoint.folder import weights_digest
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.quantize.plan import Entry, Plan
from stepwise.export.quantize.validate import layers_of
from stepwise.families import FAMILIES
from stepwise.server.process import serving
from tests.conftest import ROOT, export

CHECKPOINT = Path("miniatures/sdxl_turbo")
NAME = "sdxl_turbo_w4a8"
# Of 40 pictures: least number that show their prompt, least median PSNR against the float graph.
RIGHT_FLOOR, FLOOR_DB, COUNT = 37, 25.0, 40
ENDS = ("conv_in", "conv_out")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Linear layers at 4 bits, convolutions at 8."""
    checkpoint = open_checkpoint(ROOT / CHECKPOINT, FAMILIES["sdxl_turbo"])
    entries = {
        layer.name: Entry(16, 16) if layer.name in ENDS else Entry(4 if layer.is_linear else 8, 8)
        for layer in layers_of(checkpoint)
    }
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    Plan(str(CHECKPOINT), weights_digest(checkpoint), 0, entries).write(path)
    return path


@pytest.fixture(scope="module")
def arguments(plan, families, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    for folder in families.glob("sdxl_turbo*"):
        shutil.copytree(folder, repository / folder.name)
    options = ("--name", NAME, "--plan", str(plan), "--prompts", str(CALIBRATION))
    return repository, ("sdxl_turbo", CHECKPOINT, "--repository", str(repository), *options)


@pytest.fixture(scope="module")
def repository(arguments):
    folder, options = arguments
    export(*options)
    return folder


@pytest.fixture(scope="module")
def pictures(repository):
    """Prompts, and both pipelines' pictures for the same prompts and seeds, from one server."""
    asked = prompts.load()[:COUNT]
    with serving(repository) as server:
        client = Client(server.grpc_url)
        return asked, {
            name: [
                client.pictures(name, prompt.scene.caption, seed=prompt.seed, steps=4)[0].image
                for prompt in asked
            ]
            for name in ("sdxl_turbo", NAME)
        }


def test_quantized_pictures_are_right(pictures):
    asked, made = pictures
    for name, images in made.items():
        pairs = zip(asked, images, strict=True)
        right = sum(all(score(image, prompt.scene).values()) for prompt, image in pairs)
        print(f"{name}: {right} of {COUNT} right, {RIGHT_FLOOR}")
        assert right >= RIGHT_FLOOR


def test_quantized_pictures_are_close_to_those_of_the_float_graph(pictures):
    _, made = pictures
    found = [psnr(*pair) for pair in zip(made["sdxl_turbo"], made[NAME], strict=True)]
    print(f"{np.median(found):.1f} dB in the median, {FLOOR_DB}; {min(found):.1f} at worst")
    assert np.median(found) >= FLOOR_DB
    assert np.isfinite(found).any(), "the same graph was served twice"


def test_the_graph_lies_next_to_its_plan_and_report(repository, plan):
    folder = repository / f"{NAME}_unet" / "1"
    assert (folder / "plan.json").read_bytes() == plan.read_bytes()
    ranges, kernels = (
        json.loads((folder / f"{n}.json").read_text()) for n in ("ranges", "kernels")
    )
    assert ranges.keys() == kernels.keys() == json.loads(plan.read_text())["layers"].keys()
    assert all(found["arithmetic"] == found["planned"] for found in kernels.values())
    assert {found["planned"].partition(":")[0] for found in kernels.values()} == {
        "float",
        "W4A8",
        "W8A8",
    }


def test_the_graph_is_smaller(repository):
    sizes = [
        (repository / f"{name}_unet" / "1" / "model.onnx").stat().st_size
        for name in ("sdxl_turbo", NAME)
    ]
    print(f"{sizes[1]:,} bytes, {sizes[0] / sizes[1]:.2f} times smaller than FP32, 4")
    assert sizes[0] > 4 * sizes[1]


def test_a_rerun_reuses_the_export_and_a_new_plan_changes_only_the_unet(
    arguments, repository, plan, caplog
):
    folder, options = arguments
    caplog.set_level("INFO", "stepwise.export")

    def run():
        caplog.clear()
        export(*options)
        return caplog.text

    assert "reused" in run()
    before = Manifest.read(folder / NAME)
    given = json.loads(plan.read_text())
    given["layers"]["time_embedding.linear_1"] |= {"weight_bits": 16, "activation_bits": 16}
    plan.write_text(json.dumps(given))
    told = run()
    assert "clip_l: already finished" in told
    assert "unet: already finished" not in told
    after = Manifest.read(folder / NAME)
    changed = {name for name in before.graphs if before.graphs[name] != after.graphs[name]}
    assert changed == {"unet"}
