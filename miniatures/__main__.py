"""Trains the miniatures from nothing: ``python -m miniatures [name …]``.

``python -m miniatures full sd3 --output DIR`` writes a checkpoint of true dimensions instead.
"""

import argparse
import logging
from pathlib import Path

from miniatures import easyanimate, easyanimate_i2v, full, lora, sd3, sdxl, turbo

# In this order: sdxl's other two stand on it, easyanimate on sd3, and easyanimate_i2v on that.
TRAIN = {
    "sd3": sd3.train,
    "sdxl": sdxl.train,
    "sdxl_turbo": turbo.train,
    "sdxl_outline": lora.train,
    "easyanimate": easyanimate.train,
    "easyanimate_i2v": easyanimate_i2v.train,
}


def main() -> None:
    """Train the named miniatures, or write a full checkpoint; a run that was stopped goes on."""
    parser = argparse.ArgumentParser(prog="python -m miniatures", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"any of {', '.join(TRAIN)} (default: all), or full and one of "
        f"{', '.join(full.FAMILIES)}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("miniatures"),
        help="folder of the checkpoints, or of the full one, which are written over "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("out/training"),
        help="what a stopped run goes on from; empty it to begin again (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.names[:1] == ["full"]:
        if len(arguments.names) != 2 or arguments.names[1] not in full.FAMILIES:
            parser.error(f"full: give it one of {', '.join(full.FAMILIES)}")
        full.write(arguments.names[1], arguments.output)
        return
    unknown = set(arguments.names) - set(TRAIN)
    if unknown:
        parser.error(f"got {', '.join(sorted(unknown))}; there are {', '.join(TRAIN)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in arguments.names or TRAIN:
        TRAIN[name](arguments.output / name, arguments.state)


if __name__ == "__main__":
    main()
