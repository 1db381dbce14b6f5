import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from diffusers.pipelines.easyanimate.pipeline_easyanimate_inpaint import preprocess_image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stepwise.client import input_images, metadata
from stepwise.client.errors import InvalidRequest

NAMES = ("start_image", "end_image")


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def path(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "start.png")
    return tmp_path / "start.png"


def test_a_file_is_sent_as_an_array_and_recorded_as_path_and_digest(path, picture):
    sent, noted = input_images.taken(
        {"start_image": str(path), "steps": "9", "height": "32"}, NAMES
    )
    assert np.array_equal(sent["start_image"], picture)
    assert (sent["steps"], sorted(sent)) == ("9", ["height", "start_image", "steps"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert noted["start_image"] == {"file": str(path), "sha256": digest}
    again, _ = input_images.taken(noted, NAMES)
    assert np.array_equal(again["start_image"], picture)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_an_image_is_resized_as_in_diffusers_if_both_sides_are_given(tmp_path, picture, mode):
    path = tmp_path / "start.png"
    Image.fromarray(picture).convert(mode).save(path)
    sent, _ = input_images.taken({"start_image": str(path), "height": 32, "width": "48"}, NAMES)
    wanted = preprocess_image(Image.open(path).convert("RGB"), (32, 48))
    wanted = (wanted.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert wanted.shape == (32, 48, 3)
    assert np.array_equal(sent["start_image"], wanted)


def test_the_orientation_of_a_photograph_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[274] = 6  # orientation: rotated by 90 degrees
    Image.fromarray(picture).save(tmp_path / "start.png", exif=exif)
    sent, _ = input_images.taken({"start_image": str(tmp_path / "start.png")}, NAMES)
    assert np.array_equal(sent["start_image"], np.rot90(picture, -1))


@pytest.mark.parametrize(
    "settings", [{"height": "0", "width": "9"}, {"height": "many", "width": "9"}, {"width": 9}]
)
def test_invalid_sides_are_left_to_the_server(path, picture, settings):
    sent, _ = input_images.taken({"start_image": str(path), **settings}, NAMES)
    assert np.array_equal(sent["start_image"], picture)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "none.png", "."):
        with pytest.raises(InvalidRequest, match=r"end_image: .* cannot be read as a picture"):
            input_images.taken({"end_image": str(tmp_path / name)}, NAMES)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "it is a FIFO, socket or device where a regular file should be"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a FIFO, socket or device where a"),
        (Path.mkdir, "it is a folder where a regular file should be"),
        (Path.touch, "it is empty"),
        (lambda path: (path.touch(), os.truncate(path, 2 << 40)), "it has 2,199,023,255,552 bytes"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
    ids=["FIFO", "device", "folder", "empty", "sparse", "loop"],
)
def test_a_file_that_no_program_should_read_is_refused(tmp_path, make, problem):
    path = tmp_path / "start.png"
    make(path)
    for given in (str(path), {"file": str(path), "sha256": "0"}):
        with pytest.raises(InvalidRequest, match=f"start_image: .*{problem}"):
            input_images.taken({"start_image": given}, NAMES)
    for to_repeat in (path, path.rename(tmp_path / "start.mp4")):
        with pytest.raises(InvalidRequest, match=r"start.* cannot be read as a picture or video"):
            metadata.load(to_repeat)


def test_a_recorded_request_may_not_be_nested_deeply(tmp_path, picture):
    chunks = PngInfo()
    chunks.add_text(metadata.KEY, "[" * 100_000)
    Image.fromarray(picture).save(tmp_path / "deep.png", pnginfo=chunks)
    with pytest.raises(InvalidRequest, match=r"deep.png: its request is damaged: RecursionError"):
        metadata.load(tmp_path / "deep.png")


def test_a_recorded_file_that_is_missing_or_changed_is_refused(path):
    _, noted = input_images.taken({"start_image": str(path)}, NAMES)
    path.write_bytes(b"another")
    with pytest.raises(InvalidRequest, match=r"start.png has changed; .* --start-image FILE"):
        input_images.taken(noted, NAMES)
    path.unlink()
    with pytest.raises(InvalidRequest, match=r"start.png is missing; .* --start-image"):
        input_images.taken(noted, NAMES)
