"""Counts the values in a UNet's layers while it draws; an interrupted run resumes.

Each batch of pictures is a file, written once it is complete; their sum is the recording.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stepwise.batching.request import Request
from stepwise.export.errors import QuantizationError, reason
from stepwise.export.quantize.calibration.histogram import pack, unpack
from stepwise.export.quantize.calibration.observers import Part, Place, Recording, recording
from stepwise.export.quantize.calibration.sampling import Feed, Study, batches, draw
from stepwise.export.quantize.layers import Layer


def calibrate(study: Study, layers: Sequence[Layer], folder: Path) -> Recording:
    """Record every layer at every step of a study's pictures; files in ``folder`` are reused.

    Progress is shown. Raises QuantizationError for values that are not finite, and for a file that
    cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(batches(study.requests))
    found: dict[Place, Any] = {}
    for number, part in enumerate(tqdm(parts, "calibrating", unit="batch")):
        path = folder / f"{number:04}.npz"
        if not path.is_file():
            _write(_record(study, layers, part), path)
        for place, histogram in _read(path):
            found[place] = found[place] + histogram if place in found else histogram
    return found


def _record(study: Study, layers: Sequence[Layer], requests: Iterable[Request]) -> Recording:
    with recording(study.unet, layers) as recorder:

        def predict(feed: Feed) -> Any:
            recorder.timestep = float(feed["timestep"][0])
            return study.predict(feed)

        draw(predict, requests)
    return recorder.found


def _write(found: Recording, path: Path) -> None:
    keys = np.array([(place.layer, place.part, str(place.timestep)) for place in found])
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, keys=keys, **pack(found.values()))
    os.replace(partial, path)


def _read(path: Path) -> Iterator[tuple[Place, Any]]:
    try:
        with np.load(path) as arrays:
            places = [Place(layer, Part(part), float(step)) for layer, part, step in arrays["keys"]]
            yield from zip(places, unpack(arrays), strict=True)
    except Exception as error:  # numpy and zipfile raise anything for a damaged file
        raise QuantizationError(
            f"{path} is not a complete recording ({reason(error)}); delete it to record it again"
        ) from error
