"""Video files: their frames, their metadata, and writing while frames arrive."""

import os
import subprocess
import sys
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from stepwise.client import metadata
from stepwise.client.errors import InvalidRequest, RequestFailed
from stepwise.client.events import Event
from stepwise.client.media import video
from tests.support.paths import ROOT
from tests.support.scenes import scene

REQUEST = {
    "pipeline": "easyanimate",
    "prompt": 'é "☃" 星',
    "steps": 4,
    "preview_every": 2,
    "client": "studio",
}
# In dB. 4:2:0 colour alone limits this scene to about 40, and H.264 loses a little more; a GIF has
# 256 colours, a WebP is lossless.
FLOORS = {".mp4": 35.0, ".gif": 25.0, ".webp": np.inf}
# Tolerance for the whole video; files store times in hundredths or thousandths of a second.
SECONDS = 0.01


def slices(frames):
    """A video as a server sends it: one frame, then four at a time."""
    for first in (0, *range(1, len(frames), 4)):
        part = frames[first : first + (4 if first else 1)]
        yield Event("result", first, 4, 4, 7, 1.0, 2.0, 1.0, (), None, part)


def save(frames, path, fps=video.FPS):
    video.save(slices(frames), path, {**REQUEST, "frames": len(frames)}, fps)


def decoded(path):
    """The frames in a file, uint8 (frames, height, width, 3)."""
    if str(path).endswith(".mp4"):
        with av.open(path) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    else:
        with Image.open(path) as opened:
            shown = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(opened)]
    return np.stack(shown)


def seconds(path):
    """The duration of the file in seconds."""
    if path.suffix == ".mp4":
        with av.open(path) as container:
            return container.duration / av.time_base
    with Image.open(path) as opened:
        return sum(milliseconds(frame) for frame in ImageSequence.Iterator(opened)) / 1000


def milliseconds(frame):
    frame.load()
    return frame.info["duration"]


def psnr(frames, wanted):
    error = np.square(frames.astype(float) - wanted).mean()
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


WRITES = """
import sys
from pathlib import Path
from tests.support.scenes import scene
from tests.unit.client.test_video import save
save(scene(13, 48, 64, 7), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("suffix", video.KINDS)
@pytest.mark.parametrize("fps", [8, 12, 50])
def test_a_file_has_the_frames_and_their_request(tmp_path, suffix, fps):
    path, frames = tmp_path / f"video{suffix}", scene(49, 64, 96, 0)
    save(frames, path, fps)
    found = decoded(path)
    closeness, played = psnr(found, frames), seconds(path)
    print(f"{suffix}: {len(found)} frames of 49, {closeness:.1f} dB, floor {FLOORS[suffix]}")
    print(f"{played} s, wanted {49 / fps:.3f}, {path.stat().st_size} bytes")
    assert found.shape == frames.shape
    assert closeness >= FLOORS[suffix]
    assert abs(played - 49 / fps) <= SECONDS
    asked = {name: REQUEST[name] for name in ("pipeline", "prompt", "steps")}
    own = {"frames": 49, "seed": 7, "height": 64, "width": 96, "fps": fps}
    assert metadata.load(path) == {**asked, **own}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", video.KINDS)
@pytest.mark.parametrize("sides", [(63, 95), (64, 95), (63, 96), (1, 1)])
def test_odd_sides(tmp_path, suffix, sides):
    path, frames = tmp_path / f"video{suffix}", scene(5, *sides, 0)
    save(frames, path)
    height, width = sides
    found, even = decoded(path), (height + height % 2, width + width % 2)
    assert found.shape == (5, *(even if suffix == ".mp4" else sides), 3)
    closeness = psnr(found[:, :height, :width], frames)
    print(f"{suffix} {sides}: {closeness:.1f} dB, floor {FLOORS[suffix]}")
    assert closeness >= FLOORS[suffix]
    assert (metadata.load(path)["height"], metadata.load(path)["width"]) == sides


@pytest.mark.parametrize("suffix", video.KINDS)
def test_a_video_of_one_frame(tmp_path, suffix):
    path, frames = tmp_path / f"video{suffix}", scene(1, 32, 32, 0)
    save(frames, path)
    assert decoded(path).shape == frames.shape
    assert metadata.load(path)["seed"] == 7


def test_colours_are_kept(tmp_path):
    colours = np.eye(4, 3, dtype=np.uint8) * 255
    frames = np.broadcast_to(colours[:, None, None], (4, 32, 32, 3))
    save(np.concatenate([frames[:1], frames]), tmp_path / "video.mp4")
    found = decoded(tmp_path / "video.mp4")[1:, 16, 16].astype(int)
    off = np.abs(found - colours).max()
    print(f"red, green, blue, black are off by {off} of 255, ceiling 4")
    assert off <= 4


def test_an_mp4_file_grows_while_frames_arrive(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (49, 128, 128, 3), np.uint8)
    sizes = []

    def watched():
        for event in slices(noise):
            sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
            yield event

    video.save(watched(), tmp_path / "video.mp4", {**REQUEST, "frames": 49})
    size = (tmp_path / "video.mp4").stat().st_size
    print(f"{sizes[1:]} bytes at each request for a slice, {size} at the end")
    assert sizes[0] == 0
    assert all(later > earlier for earlier, later in pairwise(sizes[2:]))
    assert sizes[-1] > 0.7 * size
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_frames_are_converted_as_they_arrive(tmp_path, suffix, monkeypatch):
    taken, made = [], Image.fromarray
    monkeypatch.setattr(video.Image, "fromarray", lambda f: taken.append(len(told)) or made(f))
    told = []

    def counted():
        for event in slices(scene(13, 32, 32, 0)):
            told.append(event)
            yield event

    video.save(counted(), tmp_path / f"video{suffix}", {**REQUEST, "frames": 13})
    assert taken == [1] + [2] * 4 + [3] * 4 + [4] * 4


@pytest.mark.parametrize("suffix", video.KINDS)
@pytest.mark.parametrize("error", [RequestFailed("broke"), KeyboardInterrupt()])
def test_a_video_that_stops_midway_leaves_nothing(tmp_path, suffix, error):
    def broken():
        for number, event in enumerate(slices(scene(49, 64, 96, 0))):
            if number == 5:
                raise error
            yield event

    path = tmp_path / f"video{suffix}"
    path.write_text("an older video")
    with pytest.raises(type(error)):
        video.save(broken(), path, {**REQUEST, "frames": 49}, force=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(path.name, "an older video")]


@pytest.mark.parametrize("suffix", video.KINDS)
def test_a_video_that_ends_too_early_is_not_written(tmp_path, suffix):
    with pytest.raises(RequestFailed, match="the server sent 5 of 9 frames; see its log"):
        video.save(
            slices(scene(5, 32, 32, 0)), tmp_path / f"video{suffix}", {**REQUEST, "frames": "9"}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", video.KINDS)
def test_a_file_of_another_program_holds_no_request(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"video{suffix}"
    monkeypatch.setattr(metadata, "comment", lambda stored: "made by hand: é")
    save(scene(5, 32, 32, 0), path)
    with pytest.raises(InvalidRequest, match="holds no request; give a PNG, MP4, GIF or WebP file"):
        metadata.load(path)
    path.write_bytes(b"no video")
    with pytest.raises(InvalidRequest, match="cannot be read as a picture or video"):
        metadata.load(path)


def test_a_file_does_not_depend_on_uninitialized_memory(tmp_path):
    # glibc fills allocated memory with the complement of this byte.
    for filled in ("0", "85", "255"):
        environment = {**os.environ, "MALLOC_PERTURB_": filled}
        command = [sys.executable, "-c", WRITES, tmp_path / f"{filled}.mp4"]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
    first, *others = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert others == [first, first]
