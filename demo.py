"""Exports the miniatures, serves each when it is ready, and makes pictures and videos with it.

Writes ``out/*.png`` and ``out/contact_sheet.png``, ``out/*.mp4`` and ``out/videos.gif``, and prints
a table of requests and times. Exports that are already in ``out/demo`` are not repeated.
"""

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from tqdm import tqdm

from stepwise.client import Client, Event, input_images
from stepwise.client.media import png, video
from stepwise.client.media.video import FPS, Frame
from stepwise.server.process import serving

ROOT = Path(__file__).parent
OUTPUT = ROOT / "out"
REPOSITORY = OUTPUT / "demo"
# By pipeline name: the arguments of its export. Exports start in this order.
EXPORTS: dict[str, tuple[str, ...]] = {
    "sd3": ("sd3",),
    "sdxl": ("sdxl",),
    "easyanimate": ("easyanimate",),
    "sdxl_turbo": ("sdxl_turbo",),
    "easyanimate_i2v": ("easyanimate_i2v",),
    "sdxl_outline": ("sdxl", "--lora", "miniatures/sdxl_outline/pytorch_lora_weights.safetensors"),
    "sdxl_turbo_w8a8": (
        *("sdxl_turbo", "--plan", "miniatures/plans/sdxl_turbo_w8a8/plan.json"),
        *("--prompts", "miniatures/calibration.txt"),
    ),
}
# A caption, and the settings other than prompt and seed.
PIPELINES: dict[str, tuple[str, dict[str, int | float]]] = {
    "sd3": ("Stable Diffusion 3", {"steps": 20, "guidance_scale": 1.5}),
    "sdxl": ("SDXL", {"steps": 20}),
    "sdxl_outline": ("SDXL with a LoRA", {"steps": 20}),
    "sdxl_turbo": ("SDXL-Turbo", {"steps": 4}),
    "sdxl_turbo_w8a8": ("SDXL-Turbo in 8 bits, with MixDQ", {"steps": 4}),
}
PROMPTS = (
    "a large red star in the top left on a white background",
    "a small blue circle in the center on a black background",
    "a small yellow square in the top right on a black background",
    "a large green triangle in the bottom right on a gray background",
    "a large purple circle in the bottom left on a white background",
    "a small orange star in the center on a gray background",
)
# The second pipeline starts its videos from the first frames of the first one's videos.
FROM_TEXT, FROM_IMAGES = "easyanimate", "easyanimate_i2v"
VIDEOS = {FROM_TEXT: "EasyAnimate", FROM_IMAGES: "EasyAnimate from the first frames above"}
VIDEO: dict[str, int | float] = {"steps": 20, "guidance_scale": 2.0, "frames": 17}
VIDEO_PROMPTS = (
    "a red circle moving left on a white background",
    "a blue star moving up on a black background",
    "a green square moving right on a gray background",
    "a yellow triangle moving down on a black background",
    "a purple square moving down on a white background",
    "a orange star moving right on a black background",
)
_SCALE = 4
_GAP, _CAPTION, _FONT = 2 * _SCALE, 28, 18

Made = dict[str, list[Event]]
Row = tuple[object, ...]


def main() -> None:
    """Make the pictures and videos, their contact sheets and the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    began, made, rows = time.monotonic(), Made(), list[Row]()
    OUTPUT.mkdir(exist_ok=True)
    for ready in _exported():
        with serving(REPOSITORY, names=ready) as server:
            client = Client(server.grpc_url)
            for name in ready:
                draw = _videos if name in VIDEOS else _pictures
                rows += draw(client, name, made)
                print(f"{name}: drawn {time.monotonic() - began:.0f} s after the start", flush=True)
    _contact_sheet(made).save(OUTPUT / "contact_sheet.png")
    _save_moving_sheet(made, OUTPUT / "videos.gif")
    _print_table(rows)
    for sheet in ("contact_sheet.png", "videos.gif"):
        print(f"all results side by side: {_shown(OUTPUT / sheet)}")
    command = _shown(Path(sys.executable).with_name("stepwise"))
    print("to make more, and to repeat one of them:")
    print(f"  {command} serve --repository {_shown(REPOSITORY)}")
    print(f"  {command} repeat '{rows[0][-1]}' --output again.png")


def _exported() -> Iterator[list[str]]:
    """Run two exports at once; yield the names of the pipelines that have become ready."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _quiet) as pool:
        due: dict[Future[None], str] = {pool.submit(_export, name): name for name in EXPORTS}
        later: list[str] = []
        while due:
            finished, _ = wait(due, return_when=FIRST_COMPLETED)
            names = {due.pop(future): future.result() for future in finished}
            # Image-to-video waits for the videos that its images come from.
            ready = [name for name in EXPORTS if name in names or name in later]
            later = [FROM_IMAGES] if FROM_IMAGES in ready and FROM_TEXT in due.values() else []
            if ready := [name for name in ready if name not in later]:
                yield ready


def _quiet() -> None:
    """Limit each export to one core."""
    os.environ["OMP_NUM_THREADS"] = "1"


def _export(name: str) -> None:
    from stepwise.export.cli import parsed, run

    logging.basicConfig(format=f"  {name}: %(message)s", force=True)
    logging.getLogger("export").setLevel(logging.INFO)
    family, *options = EXPORTS[name]
    where = ("--checkpoint", f"miniatures/{family}", "--repository", _shown(REPOSITORY))
    run(parsed([family, *where, "--name", name, *options]))


def _pictures(client: Client, name: str, made: Made) -> Iterator[Row]:
    """Make a picture of each prompt, with a progress bar."""
    caption, settings = PIPELINES[name]
    request = {**client.about(name).defaults, "pipeline": name, **settings}
    made[name] = []
    with tqdm(total=len(PROMPTS) * int(settings["steps"]), desc=caption, unit="step") as bar:
        for seed, prompt in enumerate(PROMPTS, 1):
            before, path = bar.n, _path(name, prompt, "png")
            for event in client.generate(name, prompt, seed=seed, **settings):
                bar.update(before + event.step - bar.n)
            png.save(event, path, {**request, "prompt": prompt}, force=True)
            made[name].append(event)
            yield _told(name, prompt, event, path)


def _videos(client: Client, name: str, made: Made) -> Iterator[Row]:
    """Make a video of each prompt; also write the second pipeline's start pictures."""
    request = {**client.about(name).defaults, "pipeline": name, **VIDEO}
    made[name] = []
    for seed, prompt in tqdm(list(enumerate(VIDEO_PROMPTS, 1)), desc=VIDEOS[name], unit="video"):
        settings, path = dict[str, Any](seed=seed), _path(name, prompt, "mp4")
        if name == FROM_IMAGES:
            start = path.with_suffix(".png")
            Image.fromarray(made[FROM_TEXT][seed - 1].frames[0]).save(start)
            settings["start_image"] = str(start)
        sent, noted = input_images.taken({**VIDEO, **settings}, ["start_image"])
        result = client.video(name, prompt, **sent)
        video.save([result], path, {**request, "prompt": prompt, **noted}, force=True)
        made[name].append(result)
        yield _told(name, prompt, result, path)


def _path(name: str, prompt: str, suffix: str) -> Path:
    return OUTPUT / f"{name}_{prompt.replace(' ', '_')}.{suffix}"


def _shown(path: Path) -> str:
    """A path relative to the checkout, if it is inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _told(name: str, prompt: str, result: Event, path: Path) -> Row:
    """A row of the table."""
    milliseconds = round(result.queued_ms + result.denoising_ms)
    return name, prompt, result.seed, result.steps, milliseconds, _shown(path)


def _contact_sheet(made: Made) -> Image.Image:
    """A captioned row of pictures for each pipeline, enlarged without smoothing."""
    return _sheet(
        [_row(*PIPELINES[name], [picture.image for picture in made[name]]) for name in PIPELINES]
    )


def _save_moving_sheet(made: Made, path: Path) -> None:
    """As ``_contact_sheet``, for videos at eight frames a second."""
    frames = [
        _sheet(
            [
                _row(caption, VIDEO, [event.frames[place] for event in made[name]])
                for name, caption in VIDEOS.items()
            ]
        )
        for place in range(int(VIDEO["frames"]))
    ]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0)


def _sheet(rows: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(caption: str, settings: Mapping[str, int | float], shown: Sequence[Frame]) -> Image.Image:
    pictures = [Image.fromarray(picture) for picture in shown]
    width, height = (_SCALE * side for side in pictures[0].size)
    size = (len(pictures) * (width + _GAP) - _GAP, _CAPTION + height)
    row = Image.new("RGB", size, "white")
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    ImageDraw.Draw(row).text((2, 4), f"{caption}: {told}", "black", font_size=_FONT)
    for column, picture in enumerate(pictures):
        enlarged = picture.resize((width, height), Image.Resampling.NEAREST)
        row.paste(enlarged, (column * (width + _GAP), _CAPTION))
    return row


def _print_table(rows: Sequence[Row]) -> None:
    heads = ("pipeline", "prompt", "seed", "steps", "ms", "file")
    lines = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
