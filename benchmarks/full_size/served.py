"""Serves an exported full-size checkpoint and compares one step of a picture with diffusers."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.full_size.apart import Figures, apart
from benchmarks.harness.diffusers_baseline import Diffusers, psnr
from benchmarks.harness.leaks import look
from stepwise.client import Client
from stepwise.server.process import serving

PROMPT, SEED, SIDE = "a large red star in the top left on a white background", 7, 512
FLOOR = 35.0
_T5_TOKENS = {"sd3": 256}


def measure(family: str, checkpoint: Path, repository: Path) -> Figures:
    """Seconds and bytes of both, and the PSNR between their pictures in dB."""
    picture = repository / "reference.npy"
    reference = apart(_reference, family, checkpoint, picture)
    served = _served(family, repository, picture)
    picture.unlink()
    return {
        "side": SIDE,
        "diffusers": reference,
        "served": served,
        "checks": {"psnr": {"got": served["psnr"], "floor": FLOOR}},
    }


def passed(figures: Figures) -> bool:
    """Whether the served picture matches diffusers' within ``FLOOR``."""
    check: dict[str, Any] = figures["checks"]["psnr"]
    return bool(check["got"] >= check["floor"])


def _settings() -> dict[str, Any]:
    return {"guidance_scale": 1.0, "height": SIDE, "width": SIDE}


def _reference(family: str, checkpoint: Path, picture: Path) -> Figures:
    diffusers = Diffusers(checkpoint, _T5_TOKENS.get(family))
    np.save(picture, diffusers.pictures([PROMPT], [SEED], 1, **_settings())[0])
    return {}


def _served(family: str, repository: Path, reference: Path) -> Figures:
    start = time.monotonic()
    with serving(repository) as server:
        seconds = round(time.monotonic() - start, 1)
        client = Client(server.grpc_url)
        events = [
            client.pictures(family, PROMPT, seed=SEED, steps=1, **_settings())[0] for _ in range(2)
        ]
        resident = look(server).resident
    return {
        "loading_seconds": seconds,
        "psnr": round(psnr(events[0].image, np.load(reference)), 1),
        "denoising_ms": [round(event.denoising_ms) for event in events],
        "resident": resident,
    }
