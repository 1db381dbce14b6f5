"""How many rows a denoiser call may have, by resolution: ``caps.json`` in ``<name>_prepare``.

A file of the person who runs the server, as ``python -m benchmarks caps`` suggests it:
``{"1024x1024": 4}`` is height x width in pixels and rows. A size that is absent may fill the
denoiser's slots. One picture always fits, so a cap of 1 is one picture at a time.
"""

import json
from pathlib import Path

from pipelines.spec import Pipeline

FILE = "caps.json"


def read(folder: Path, pipeline: Pipeline) -> dict[str, int]:
    """The caps in ``folder``, none if there is no file; ValueError if one is not allowed."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        caps = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: got no JSON object ({error}); write it as {_EXAMPLE}") from error
    for size, rows in caps.items():
        if type(rows) is not int or not 1 <= rows <= pipeline.slots:
            raise ValueError(
                f"{path}: got {rows!r} rows for {size}; allowed are 1 to {pipeline.slots}"
            )
    return caps


_EXAMPLE = '{"64x64": 16}'
