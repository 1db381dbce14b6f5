"""Starts a server on the exported miniatures, makes pictures and clips with each, and stops.

Writes ``out/*.png`` and ``out/contact_sheet.png``, ``out/*.mp4`` and ``out/clips.gif``, and prints
what was asked and how long it took.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from tqdm import tqdm

from client import Client, Event, clips
from client.clips import FPS, Frame
from server.process import serving

ROOT = Path(__file__).parent
# By the name that Triton has for it: a caption, and what is asked for beside prompt and seed.
PIPELINES: dict[str, tuple[str, dict[str, int | float]]] = {
    "sd3": ("Stable Diffusion 3", {"steps": 20, "guidance_scale": 1.5}),
    "sdxl": ("SDXL", {"steps": 20}),
    "sdxl_outline": ("SDXL with a LoRA", {"steps": 20}),
    "sdxl_turbo": ("SDXL-Turbo", {"steps": 4}),
}
PROMPTS = (
    "a large red star in the top left on a white background",
    "a small blue circle in the center on a black background",
    "a small yellow square in the top right on a black background",
    "a large green triangle in the bottom right on a gray background",
    "a large purple circle in the bottom left on a white background",
    "a small orange star in the center on a gray background",
)
# The second goes on from the first frames of the first one's clips.
FROM_TEXT, FROM_IMAGES = "easyanimate", "easyanimate_i2v"
CLIPS = {FROM_TEXT: "EasyAnimate", FROM_IMAGES: "EasyAnimate from the first frames above"}
CLIP: dict[str, int | float] = {"steps": 20, "guidance_scale": 2.0, "frames": 17}
CLIP_PROMPTS = (
    "a red circle moving left on a white background",
    "a blue star moving up on a black background",
    "a green square moving right on a gray background",
    "a yellow triangle moving down on a black background",
    "a purple square moving down on a white background",
    "a orange star moving right on a black background",
)
_SCALE = 4
_GAP, _CAPTION, _FONT = 2 * _SCALE, 28, 18


def main() -> None:
    """Make the pictures and clips, the sheets of them and the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = ROOT / "out"
    output.mkdir(exist_ok=True)
    with serving(output / "demo") as server:
        client = Client(server.grpc_url)
        results = {name: _pictures(client, name) for name in PIPELINES}
        moving = {FROM_TEXT: _clips(client, FROM_TEXT, [{}] * len(CLIP_PROMPTS))}
        starts = [{"start_image": clip.frames[0]} for clip in moving[FROM_TEXT]]
        moving[FROM_IMAGES] = _clips(client, FROM_IMAGES, starts)
    rows = []
    for name, pictures in results.items():
        for prompt, result in zip(PROMPTS, pictures, strict=True):
            path = _path(output, name, prompt, "png")
            Image.fromarray(result.image).save(path)
            rows.append(_told(name, prompt, result, path))
    for name, made in moving.items():
        for prompt, result in zip(CLIP_PROMPTS, made, strict=True):
            path = _path(output, name, prompt, "mp4")
            clips.save([result], path, {"pipeline": name, "prompt": prompt, **CLIP})
            rows.append(_told(name, prompt, result, path))
    _contact_sheet(results).save(output / "contact_sheet.png")
    _save_moving_sheet(moving, output / "clips.gif")
    _print_table(rows)
    for sheet in ("contact_sheet.png", "clips.gif"):
        print(f"all of them side by side: {(output / sheet).relative_to(ROOT)}")


def _path(output: Path, name: str, prompt: str, suffix: str) -> Path:
    return output / f"{name}_{prompt.replace(' ', '_')}.{suffix}"


def _told(name: str, prompt: str, result: Event, path: Path) -> tuple[object, ...]:
    """A row of the table."""
    milliseconds = round(result.queued_ms + result.denoising_ms)
    return name, prompt, result.seed, result.steps, milliseconds, path.relative_to(ROOT)


def _clips(client: Client, name: str, images: Sequence[Mapping[str, Any]]) -> list[Event]:
    """A clip of each prompt."""
    rows = list(enumerate(zip(CLIP_PROMPTS, images, strict=True), 1))
    return [
        client.clip(name, prompt, seed=seed, **CLIP, **given)
        for seed, (prompt, given) in tqdm(rows, desc=CLIPS[name], unit="clip")
    ]


def _pictures(client: Client, name: str) -> list[Event]:
    """A picture of each prompt, with a progress bar while it is made."""
    made, (caption, settings) = [], PIPELINES[name]
    with tqdm(total=len(PROMPTS) * int(settings["steps"]), desc=caption, unit="step") as bar:
        for seed, prompt in enumerate(PROMPTS, 1):
            before = bar.n
            for event in client.generate(name, prompt, seed=seed, **settings):
                bar.update(before + event.step - bar.n)
            made.append(event)
    return made


def _contact_sheet(results: dict[str, list[Event]]) -> Image.Image:
    """A row of pictures for each pipeline below its caption, enlarged without smoothing."""
    return _sheet(
        [
            _row(*PIPELINES[name], [picture.image for picture in pictures])
            for name, pictures in results.items()
        ]
    )


def _save_moving_sheet(results: dict[str, list[Event]], path: Path) -> None:
    """The same of clips, eight frames a second."""
    frames = [
        _sheet(
            [
                _row(CLIPS[name], CLIP, [clip.frames[place] for clip in made])
                for name, made in results.items()
            ]
        )
        for place in range(int(CLIP["frames"]))
    ]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0)


def _sheet(rows: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(caption: str, settings: dict[str, int | float], shown: Sequence[Frame]) -> Image.Image:
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


def _print_table(rows: list[tuple[object, ...]]) -> None:
    heads = ("pipeline", "prompt", "seed", "steps", "ms", "file")
    lines = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
