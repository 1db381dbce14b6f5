from pathlib import Path

import pytest

from benchmarks.peers import Diffusers
from client import Client
from pipelines.manifest import Manifest
from server.process import serving

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "miniatures" / "sd3"


@pytest.fixture(scope="session")
def server(repository):
    """A running server with the exported miniature."""
    with serving(repository) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    return Client(server.grpc_url)


@pytest.fixture(scope="session")
def diffusers(repository):
    """StableDiffusion3Pipeline on the same checkpoint."""
    manifest = Manifest.read(repository / "sd3_prepare")
    return Diffusers(CHECKPOINT, manifest.tokens["t5"])
