"""The most rows in a denoiser call, by resolution: ``caps.json`` in ``<name>``.

The operator writes this file; ``python -m benchmarks caps`` suggests its contents. Keys are width x
height in pixels, values are rows: ``{"832x1248": 4}``. Video keys begin with the frames:
``49x720x480``. The cap of other sizes is ``max_rows``. One picture always fits, so a cap of 1 means
one picture at a time.
"""

import os
from pathlib import Path

import numpy as np

from stepwise.description.errors import InvalidRequest
from stepwise.description.family import Family
from stepwise.description.files import read_json
from stepwise.description.manifest import Manifest
from stepwise.description.settings import resolution
from stepwise.request.sizes import picture_size, video_frames

FILE = "caps.json"


def read(folder: Path, family: Family, manifest: Manifest) -> dict[str, int]:
    """The caps in ``folder``, empty without a file. Raises ValueError if a cap is not allowed."""
    path = folder / FILE
    if not os.path.lexists(path):
        return {}
    try:
        caps = dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: got no JSON object ({error}); write it as {_EXAMPLE}") from error
    for size, rows in caps.items():
        if not _is_served(size, family, manifest):
            raise ValueError(
                f"{path}: got the size {size!r}, which is not served; allowed are the sizes of "
                f"requests, as {'frames x ' * family.makes_videos}width x height, such as "
                f"{resolution(manifest.size, family.defaults.frames)}"
            )
        if type(rows) is not int or not 1 <= rows <= family.max_rows:
            raise ValueError(
                f"{path}: got {rows!r} rows for {size}; allowed are 1 to {family.max_rows}"
            )
    return caps


def _is_served(size: str, family: Family, manifest: Manifest) -> bool:
    """Whether a request can have the size, and it has the form of ``resolution``."""
    numbers = [int(part) if part.isdecimal() else 0 for part in size.split("x")]
    if len(numbers) != (3 if family.makes_videos else 2):
        return False
    *frames, width, height = numbers
    inputs = {"height": np.asarray([height]), "width": np.asarray([width])}
    try:
        picture_size(inputs, manifest)
        if manifest.video is not None:
            video_frames({"frames": np.asarray(frames)}, family, manifest.video)
    except InvalidRequest:
        return False
    return size == resolution((height, width), frames[0] if frames else None)


_EXAMPLE = '{"64x64": 16}'
