"""Special, endless and nested files are refused in one sentence before weights are read."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from stepwise.export.checkpoint.safetensors_files import check_files
from stepwise.export.checkpoint.tokenizer import chat_templates
from stepwise.export.errors import CheckpointError
from stepwise.export.loading.source import open_checkpoint, open_source
from stepwise.families import FAMILIES
from tests.support.family import key
from tests.support.paths import ROOT
from tests.support.special_files import KINDS, deep_header, deep_json, unprivileged

LIMIT_SECONDS = 20
MINIATURES = ("sd3", "sdxl", "sdxl_turbo", "easyanimate", "easyanimate_i2v")
# The sentence about each kind, after the file's path.
SENTENCES = {
    "FIFO": "is a FIFO where a regular file should be",
    "socket": "is a socket where a regular file should be",
    "device": "is a device where a regular file should be",
    "folder": "is a folder where a regular file should be",
    "link to its folder": "is a folder where a regular file should be",
    "link to itself": "cannot be read (Too many levels of symbolic links)",
    "dangling link": "is a link to nowhere, which is missing",
    "empty": "is empty",
    "file of /proc": "is empty",
    "sparse": "has 2,199,023,255,552 bytes where at most ",
}


@pytest.fixture(autouse=True)
def limit():
    """Ends a test that hangs, in the middle of a system call too."""

    def fail(*_: object) -> None:
        pytest.fail(f"more than {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def open_to_all():
    """A folder that users other than root can read, unlike pytest's."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def refusal(source, family, *loras):
    with pytest.raises(CheckpointError) as error:
        open_source(str(source), FAMILIES[family], None, loras)
    return str(error.value)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copied(family, folder):
    """A copy of a miniature with links to its files, which tests replace and never change."""
    source = ROOT / "miniatures" / family
    return Path(shutil.copytree(source, folder / "checkpoint", copy_function=os.link))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", MINIATURES)
def test_a_special_file_in_place_of_any_other_is_named(tmp_path, family, kind):
    folder = copied(family, tmp_path)
    for path in files(folder):
        path.rename(tmp_path / "kept")
        KINDS[kind](path)
        message = refusal(folder, family)
        assert message.startswith(f"{path} {SENTENCES[kind]}"), message
        assert message.endswith("; download it again")
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (tmp_path / "kept").rename(path)
    assert open_source(str(folder), FAMILIES[family]).folder == folder


@pytest.mark.parametrize("family", MINIATURES)
def test_deep_nesting_in_any_file_is_named(tmp_path, family):
    folder, seen = copied(family, tmp_path), 0
    for path in files(folder):
        if path.suffix not in (".json", ".safetensors"):
            continue
        shutil.copyfile(path, tmp_path / "kept")
        deep_json(path) if path.suffix == ".json" else deep_header(path)
        message = refusal(folder, family)
        problem = "is nested deeper than" if path.suffix == ".json" else "is corrupt: its first"
        assert message.startswith(f"{path} {problem}"), message
        (tmp_path / "kept").replace(path)
        seen += 1
    assert seen > 9


@pytest.mark.parametrize("family", MINIATURES)
def test_a_file_or_folder_without_permission_is_named(open_to_all, family):
    folder = copied(family, open_to_all)
    for path in files(folder):
        kept = path.rename(open_to_all / "kept")
        shutil.copyfile(kept, path)
        path.chmod(0)
        with unprivileged():
            message = refusal(folder, family)
        assert message == f"{path} cannot be read (Permission denied); download it again"
        kept.replace(path)
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        path.chmod(0)
        with unprivileged():
            message = refusal(folder, family)
        assert message.startswith(f"{path} cannot be listed (Permission denied)")
        path.chmod(0o755)
    open_to_all.chmod(0)
    with unprivileged():
        assert refusal(folder, family).startswith(f"{folder} cannot be read (Permission denied)")
    open_to_all.chmod(0o755)


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_file_in_place_of_a_lora_or_single_file_is_named(tmp_path, kind):
    path = tmp_path / "file.safetensors"
    KINDS[kind](path)
    sentence = f"{path} {SENTENCES[kind]}"
    assert refusal(ROOT / "miniatures" / "sdxl", "sdxl", str(path)).startswith(sentence)
    message = refusal(path, "sdxl")
    if kind in ("folder", "link to its folder"):
        assert message.startswith(f"{path} has no model_index.json")
    elif kind == "dangling link":
        assert message.startswith(f"{path} is not a folder")
    else:
        assert message.startswith(f"{path} ")
        assert SENTENCES[kind] in message


def test_a_header_without_end_is_not_read(tmp_path):
    folder = copied("sd3", tmp_path)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    path.write_bytes((10**10).to_bytes(8, "little"))
    os.truncate(path, 2 * 10**10)
    message = refusal(folder, "sd3")
    assert message.startswith(f"{path} is corrupt: it has a header of 10,000,000,008 bytes")


@pytest.mark.parametrize(
    "name", ["../vae.safetensors", "/dev/zero", "shard.bin", "", "a/b.safetensors"]
)
def test_an_index_names_only_files_next_to_it(tmp_path, name):
    folder = copied("sd3", tmp_path)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": name}}))
    message = refusal(folder, "sd3")
    assert message.startswith(f"{index} has no weight_map naming .safetensors files next to it")


def test_files_that_no_library_reads_may_be_anything(tmp_path):
    folder = copied("sd3", tmp_path)
    before = key(open_checkpoint(folder, FAMILIES["sd3"]))
    for number, make in enumerate(KINDS.values()):
        make(folder / "text_encoder" / f"pytorch_model_{number}.bin")
    (folder / "tokenizer" / "self").symlink_to(".")
    assert key(open_checkpoint(folder, FAMILIES["sd3"])) == before


def test_links_of_the_hugging_face_cache_are_followed(tmp_path):
    source, snapshot = ROOT / "miniatures" / "sd3", tmp_path / "snapshots" / "main"
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(files(source)):
        shutil.copyfile(path, tmp_path / "blobs" / str(number))
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(
            Path("../" * (len(link.relative_to(tmp_path).parts) - 1)) / "blobs" / str(number)
        )
    family = FAMILIES["sd3"]
    assert key(open_checkpoint(snapshot, family)) == key(open_checkpoint(source, family))


def test_large_files_of_real_checkpoints_are_allowed(tmp_path):
    vocabulary = {f"token {number}": number for number in range(2_000_000)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    assert (tmp_path / "tokenizer.json").stat().st_size > 40_000_000
    shards = {f"blocks.{number}.weight": "model.safetensors" for number in range(200_000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "model.safetensors").touch()
    os.truncate(tmp_path / "model.safetensors", 60 * 10**9)
    check_files(tmp_path)


@pytest.mark.parametrize("depth", [64, 65])
def test_json_may_be_nested_as_deeply_as_documented(tmp_path, depth):
    (tmp_path / "config.json").write_text("[" * depth + "]" * depth)
    if depth == 64:
        check_files(tmp_path)
    else:
        with pytest.raises(
            CheckpointError, match="nested deeper than the allowed 64 lists and obj"
        ):
            check_files(tmp_path)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        (2 * "{% for i in range(99999) %}" + 2 * "{% endfor %}", "it takes too long"),
        ("{{ 'a' * 10**10 }}", "it takes more than 500,000,000 bytes of memory"),
        ("{{ 'a' * 10**6 }}", "it makes 1,000,000 characters of a prompt"),
        ("{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}", "maximum recursion depth exceeded"),
    ],
    ids=["range", "loops", "memory", "long", "nested"],
)
def test_a_chat_template_without_end_is_refused(tmp_path, template, problem):
    folder = copied("easyanimate", tmp_path)
    path = folder / "tokenizer" / "chat_template.jinja"
    path.unlink()
    path.write_text(template)
    checkpoint, start = open_checkpoint(folder, FAMILIES["easyanimate"]), time.monotonic()
    with pytest.raises(CheckpointError) as error:
        chat_templates(checkpoint)
    print(f"{time.monotonic() - start:.1f} s: {error.value}")
    assert f"{path.parent} has no usable chat template ({problem}" in str(error.value)


def test_further_chat_templates_are_checked(tmp_path):
    folder = copied("easyanimate", tmp_path)
    path = folder / "tokenizer" / "additional_chat_templates" / "tool.jinja"
    path.parent.mkdir()
    os.mkfifo(path)
    assert refusal(folder, "easyanimate").startswith(f"{path} is a FIFO")
