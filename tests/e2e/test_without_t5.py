"""A checkpoint without its optional T5 encoder is exported and served, with a note."""

import shutil
import subprocess

import pytest

from benchmarks.harness.diffusers_baseline import Diffusers, psnr
from stepwise.client import Client
from stepwise.server.process import serving
from tests.e2e.conftest import CHECKPOINT, ROOT
from tests.support.paths import STEPWISE

PROMPT = "a large red star in the top left on a white background"
FLOOR_DB = 40.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "without_t5"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("text_encoder_3"))
    index = folder / "model_index.json"
    text = index.read_text().replace(
        '"text_encoder_3": [\n    "transformers",\n    "T5EncoderModel"\n  ]',
        '"text_encoder_3": [null, null]',
    )
    assert "null" in text
    index.write_text(text)
    return folder


def test_it_matches_diffusers_and_notes_the_missing_encoder(checkpoint, tmp_path):
    command = [STEPWISE, "export", "sd3", "--checkpoint", str(checkpoint)]
    options = ["--repository", str(tmp_path), "--name", "sd3_small"]
    subprocess.run([*command, *options], cwd=ROOT, check=True)
    with serving(tmp_path) as server:
        client = Client(server.grpc_url)
        served = client.pictures("sd3_small", PROMPT, steps=8, seed=11)[0]
    assert any(
        note.startswith("t5: this checkpoint was exported without it") for note in served.notes
    )
    reference = Diffusers(checkpoint, 20).pictures([PROMPT], [11], 8, guidance_scale=7.0)[0]
    closeness = psnr(served.image, reference)
    print(f"PSNR {closeness:.1f} dB, floor {FLOOR_DB} dB")
    assert closeness >= FLOOR_DB
