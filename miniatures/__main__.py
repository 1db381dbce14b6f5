"""Trains the miniatures from nothing: ``python -m miniatures sd3|sdxl [--output miniatures]``."""

import argparse
import logging
from pathlib import Path

from miniatures import sd3, sdxl

TRAIN = {"sd3": sd3.train, "sdxl": sdxl.train}


def main() -> None:
    """Train one miniature, the autoencoder first; a run that was stopped goes on."""
    parser = argparse.ArgumentParser(prog="python -m miniatures", description=__doc__)
    parser.add_argument("miniature", choices=TRAIN)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("miniatures"),
        help="folder for the checkpoint's, which is written over (default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path("out/training"),
        help="folder of what a stopped run goes on from; empty it to begin again "
        "(default: %(default)s)",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    name = arguments.miniature
    TRAIN[name](arguments.output / name, arguments.state)


if __name__ == "__main__":
    main()
