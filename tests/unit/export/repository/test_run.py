import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from stepwise.description import formats
from stepwise.description.graph_files import graph_digest
from stepwise.description.manifest import FILE, Manifest
from stepwise.export.checkpoint.tokenizer import token_length
from stepwise.export.errors import CheckpointError
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.onnx import parity_report
from stepwise.export.repository import records
from stepwise.export.repository.keys import trace_key
from stepwise.export.repository.layout import Target
from stepwise.export.repository.records import is_finished
from stepwise.export.repository.triton_configs import committed
from stepwise.export.run import export
from stepwise.families import FAMILIES
from tests import conftest
from tests.support.paths import ROOT, STEPWISE

MINIATURE = ROOT / "miniatures" / "sd3"
SD3 = FAMILIES["sd3"]
TEXTS = [
    "",
    " ",
    "a large red star in the top left on a white background",
    "A LARGE Red sTaR",
    "🦊🧑‍🚀 naïve café 北京 \u200b",
    "<|endoftext|> a star <|startoftext|> </s> <pad> <unk> !",
    "tabs\tand\nnew lines  and   spaces ",
    "can't, won't; 3.14 × (x_1) -- #tag @you",
    "star " * 500,
    "x" * 5000,
    "!" * 19,
    "a star" + " 🦊" * 40,
]


@pytest.fixture
def other(folder):
    """Another checkpoint, with one more line in the first text encoder's config."""
    path = folder / "text_encoder" / "config.json"
    path.write_text(path.read_text() + "\n")
    return open_checkpoint(folder, SD3)


def command(*arguments):
    return [STEPWISE, "export", "sd3", "--checkpoint", *map(str, arguments)]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("encoder", SD3.encoders, ids=lambda e: e.name)
def test_tokenizer_files_give_the_ids_that_diffusers_uses(repository, encoder, text):
    path = repository / "sd3" / "tokenizers" / f"{encoder.name}.json"
    reference = AutoTokenizer.from_pretrained(MINIATURE / encoder.tokenizer)
    expected = reference(text, padding="max_length", max_length=20, truncation=True).input_ids
    assert Tokenizer.from_file(str(path)).encode(text).ids == expected


def test_only_cut_texts_are_reported(repository):
    path = repository / "sd3" / "tokenizers" / "clip_l.json"
    tokenizer = Tokenizer.from_file(str(path))
    assert tokenizer.encode("star " * 19).overflowing
    assert not tokenizer.encode("star " * 18).overflowing


def test_token_lengths_are_capped_as_in_diffusers(folder):
    t5 = SD3.encoders[2]
    config = folder / t5.tokenizer / "tokenizer_config.json"
    config.write_text(config.read_text().replace("20", "512"))
    checkpoint = open_checkpoint(folder, SD3)
    assert [token_length(checkpoint, encoder) for encoder in SD3.encoders] == [20, 20, 256]
    shutil.rmtree(folder / t5.subfolder)
    shutil.rmtree(folder / t5.tokenizer)
    assert token_length(open_checkpoint(folder, SD3), t5) == 256


def test_the_manifest_describes_its_repository(repository):
    checkpoint = open_checkpoint(MINIATURE, SD3)
    target = Target(checkpoint, repository, "sd3")
    manifest = Manifest.read(target.folder)
    assert manifest.sides == checkpoint.sides
    assert manifest.tokens == {"clip_l": 20, "clip_g": 20, "t5": 20}
    assert (manifest.latent_channels, manifest.vae_scale, manifest.missing) == (16, 8, ())
    for component in SD3.components:
        assert manifest.graphs[component.name] == graph_digest(target.version(component))
    rows = parity_report.read(target.folder)
    assert {row.component for row in rows} == {component.name for component in SD3.components}
    assert all(row.ok for row in rows)


def test_a_second_export_reuses_the_first(repository):
    start = time.monotonic()
    again = command(MINIATURE, "--repository", repository, "--verbose")
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - start
    print(f"{seconds:.1f} s, 8")
    assert "reused" in done.stderr
    assert "vae_decoder" in done.stdout
    assert seconds < 8


@pytest.mark.parametrize(
    "damage",
    ["sd3_t5/1/model.onnx", "sd3_t5/config.pbtxt", "sd3/tokenizers/t5.json", "sd3/parity.json",
     "sd3/manifest.json"],
)  # fmt: skip
def test_an_export_with_a_missing_or_damaged_file_is_not_reused(
    repository, tmp_path, damage, other
):
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    checkpoint = open_checkpoint(MINIATURE, SD3)
    target = Target(checkpoint, copy, "sd3")
    assert is_finished(target)
    assert not is_finished(replace(target, checkpoint=other))
    (copy / damage).write_bytes(b"")
    if not damage.endswith(("onnx", "manifest.json", "parity.json")):
        (copy / damage).unlink()
    assert not is_finished(target)


def test_an_export_in_an_older_format_gets_new_configs_and_keeps_its_graphs(repository, tmp_path):
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    target = Target(open_checkpoint(MINIATURE, SD3), copy, "sd3")
    configs = [target.model(component) / "config.pbtxt" for component in SD3.components]
    due = [config.read_text() for config in configs]
    assert all("largest_sizes" in text for text in due)
    for config in configs:
        config.write_text("older")
    older = formats.REPOSITORY - 1
    replace(Manifest.read(target.folder), format=older, source="older").write(target.folder)
    graphs = [target.version(component) / "model.onnx" for component in SD3.components]
    stamps = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in graphs]
    export(target, {})
    assert [config.read_text() for config in configs] == due
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in graphs] == stamps
    assert Manifest.read(target.folder).format == formats.REPOSITORY
    assert is_finished(target)


def test_a_killed_export_is_unfinished_and_resumes(repository, tmp_path, monkeypatch, caplog):
    # From other exports, take only traces.
    where, kept = Target(open_checkpoint(MINIATURE, SD3), tmp_path, "other"), tmp_path / "kept"
    kept.mkdir()
    for component in SD3.components:
        key = trace_key(where, component)
        (kept / key).symlink_to(Path(os.environ[records.KEPT], key))
    monkeypatch.setenv(records.KEPT, str(kept))
    process = subprocess.Popen(
        command(MINIATURE, "--repository", tmp_path, "--name", "other"),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    first = tmp_path / "other_clip_l" / "1" / "model.onnx"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    checkpoint = open_checkpoint(MINIATURE, SD3)
    target = Target(checkpoint, tmp_path, "other")
    assert not (target.folder / FILE).exists()
    assert not is_finished(target)
    assert not target.version(SD3.decoder).exists()
    for path, text in committed(SD3, "other").items():
        assert (tmp_path / path).read_text() == text

    stamp = first.stat().st_mtime_ns
    caplog.set_level("INFO", "stepwise.export")
    conftest.export("sd3", MINIATURE, "--repository", str(tmp_path), "--name", "other")
    assert "clip_l: already finished" in caplog.text
    assert "vae_decoder: exporting" in caplog.text
    assert first.stat().st_mtime_ns == stamp
    assert is_finished(target)


@pytest.mark.parametrize(
    ("file", "content"),
    [("export.json", None), ("export.json", "{"), ("model.onnx", "other"), ("parity.json", None)],
)
def test_an_incomplete_component_is_not_finished(repository, tmp_path, other, file, content):
    video = SD3.encoders[0]
    copied = tmp_path / "sd3_clip_l" / "1"
    shutil.copytree(repository / "sd3_clip_l" / "1", copied)
    target = Target(open_checkpoint(MINIATURE, SD3), tmp_path, "sd3")
    assert len(records.read(target, video)) == 4
    assert records.read(replace(target, checkpoint=other), video) is None
    assert records.read(replace(target, precision="fp16"), video) is None
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_text(content)
    assert records.read(target, video) is None


def test_a_failed_export_removes_the_old_manifest(repository, tmp_path, folder):
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    weights = (folder / "text_encoder_2" / "model.safetensors").read_bytes()
    (folder / "text_encoder" / "model.safetensors").write_bytes(weights)
    target = Target(open_checkpoint(folder, SD3), copy, "sd3")
    with pytest.raises(CheckpointError, match="text_encoder"):
        export(target, {})
    assert not (target.folder / FILE).exists()
