"""Starts a server on the exported miniatures, makes six pictures through the client, and stops.

Writes ``out/*.png`` and ``out/contact_sheet.png``, and prints what was asked and how long it took.
"""

import logging
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from client import Client, Event
from server.process import serving

ROOT = Path(__file__).parent
PIPELINE = "sd3"
STEPS = 20
GUIDANCE_SCALE = 1.5
PROMPTS = (
    "a large red star in the top left on a white background",
    "a small blue circle in the center on a black background",
    "a large green triangle in the bottom right on a gray background",
    "a small yellow square in the top right on a black background",
    "a large purple circle in the bottom left on a white background",
    "a small orange star in the center on a gray background",
)
_SCALE = 4


def main() -> None:
    """Make the pictures, the contact sheet and the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = ROOT / "out"
    output.mkdir(exist_ok=True)
    with serving(ROOT / "model_repository") as server:
        client = Client(server.grpc_url)
        results = [_picture(client, seed, prompt) for seed, prompt in enumerate(PROMPTS, 1)]
    rows = []
    for prompt, result in zip(PROMPTS, results, strict=True):
        path = output / f"{prompt.replace(' ', '_')}.png"
        Image.fromarray(result.image).save(path)
        milliseconds = round(result.queued_ms + result.denoising_ms)
        rows.append((prompt, result.seed, result.steps, milliseconds, path.relative_to(ROOT)))
    _contact_sheet(results).save(output / "contact_sheet.png")
    _print_table(rows)
    print(f"all of them side by side: {(output / 'contact_sheet.png').relative_to(ROOT)}")


def _picture(client: Client, seed: int, prompt: str) -> Event:
    """The finished picture, with a progress bar while it is made."""
    with tqdm(total=STEPS, desc=prompt, unit="step") as bar:
        settings = {"steps": STEPS, "seed": seed, "guidance_scale": GUIDANCE_SCALE}
        for event in client.generate(PIPELINE, prompt, **settings):
            bar.update(event.step - bar.n)
    return event


def _contact_sheet(results: list[Event]) -> Image.Image:
    """All pictures in one row, enlarged without smoothing."""
    pictures = [Image.fromarray(result.image) for result in results]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (len(pictures) * (width + 2) - 2, height), "white")
    for column, picture in enumerate(pictures):
        sheet.paste(picture, (column * (width + 2), 0))
    return sheet.resize((sheet.width * _SCALE, sheet.height * _SCALE), Image.Resampling.NEAREST)


def _print_table(rows: list[tuple[object, ...]]) -> None:
    heads = ("prompt", "seed", "steps", "ms", "file")
    lines = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
