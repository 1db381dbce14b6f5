"""Starts a server on the exported miniatures, makes six pictures with each, and stops.

Writes ``out/*.png`` and ``out/contact_sheet.png``, and prints what was asked and how long it took.
"""

import logging
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm import tqdm

from client import Client, Event
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
_SCALE = 4
_GAP, _CAPTION, _FONT = 2 * _SCALE, 28, 18


def main() -> None:
    """Make the pictures, the contact sheet and the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = ROOT / "out"
    output.mkdir(exist_ok=True)
    with serving(output / "demo") as server:
        client = Client(server.grpc_url)
        results = {name: _pictures(client, name) for name in PIPELINES}
    rows = []
    for name, pictures in results.items():
        for prompt, result in zip(PROMPTS, pictures, strict=True):
            path = output / f"{name}_{prompt.replace(' ', '_')}.png"
            Image.fromarray(result.image).save(path)
            milliseconds = round(result.queued_ms + result.denoising_ms)
            file = path.relative_to(ROOT)
            rows.append((name, prompt, result.seed, result.steps, milliseconds, file))
    _contact_sheet(results).save(output / "contact_sheet.png")
    _print_table(rows)
    print(f"all of them side by side: {(output / 'contact_sheet.png').relative_to(ROOT)}")


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
    rows = [_row(*PIPELINES[name], pictures) for name, pictures in results.items()]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(caption: str, settings: dict[str, int | float], results: list[Event]) -> Image.Image:
    pictures = [Image.fromarray(result.image) for result in results]
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
