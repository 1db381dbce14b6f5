"""Retrains the miniatures from nothing: ``python -m miniatures [--output miniatures]``."""

import argparse
import logging
from pathlib import Path

from miniatures import sd3, vae

VAE_STEPS = 5000
LATENT_CHANNELS = 16


def main() -> None:
    """Train the autoencoder, then the text encoders and the transformer on its latents."""
    parser = argparse.ArgumentParser(prog="python -m miniatures", description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("miniatures"),
        help="folder for sd3/, which is written over (default: %(default)s)",
    )
    checkpoint = parser.parse_args().output / "sd3"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    vae.train(checkpoint / "vae", LATENT_CHANNELS, VAE_STEPS)
    sd3.train(checkpoint)


if __name__ == "__main__":
    main()
