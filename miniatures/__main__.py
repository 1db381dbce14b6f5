"""Trains the miniatures from scratch: ``python -m miniatures [name …]``.

``python -m miniatures full sd3 --output DIR`` writes a full-size checkpoint instead.
"""

import argparse
import logging
from pathlib import Path

from miniatures import easyanimate, easyanimate_i2v, full, lora, sd3, sdxl, turbo

# Dependencies first: sdxl_turbo and sdxl_outline start from sdxl, easyanimate from sd3, and
# easyanimate_i2v from easyanimate.
TRAIN = {
    "sd3": sd3.train,
    "sdxl": sdxl.train,
    "sdxl_turbo": turbo.train,
    "sdxl_outline": lora.train,
    "easyanimate": easyanimate.train,
    "easyanimate_i2v": easyanimate_i2v.train,
}


def main() -> None:
    """Train the named miniatures, or write a full-size checkpoint. A stopped run resumes."""
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
        help="folder of the checkpoints, or of the full one; existing files are overwritten "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("out/training"),
        help="folder from which a stopped run resumes; empty it to start again "
        "(default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.names[:1] == ["full"]:
        if len(arguments.names) != 2 or arguments.names[1] not in full.FAMILIES:
            parser.error(f"full: needs one of {', '.join(full.FAMILIES)}")
        full.write(arguments.names[1], arguments.output)
        return
    unknown = set(arguments.names) - set(TRAIN)
    if unknown:
        parser.error(f"got {', '.join(sorted(unknown))}; allowed are {', '.join(TRAIN)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in arguments.names or TRAIN:
        TRAIN[name](arguments.output / name, arguments.state)


if __name__ == "__main__":
    main()
