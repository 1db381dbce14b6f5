"""A grid of pictures from every row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quantization.figures import Levels
from miniatures.prompts import Prompt

_COLUMNS, _GAP, _LABEL, _FONT = 10, 2, 330, 15


def write(made: Mapping[str, Levels], prompts: Sequence[Prompt], path: Path) -> None:
    """Write a PNG: a row for each label, a column for each of ten evenly spaced prompts."""
    places = np.linspace(0, len(prompts) - 1, _COLUMNS).round().astype(int)
    side = next(iter(made.values())).shape[-1] + _GAP
    sheet = Image.new("RGB", (_LABEL + side * _COLUMNS, side * len(made)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for row, (label, levels) in enumerate(made.items()):
        draw.text((4, row * side + side // 3), label, fill="black", font=font)
        for column, place in enumerate(places):
            picture = Image.fromarray(levels[place].transpose(1, 2, 0))
            sheet.paste(picture, (_LABEL + column * side, row * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
