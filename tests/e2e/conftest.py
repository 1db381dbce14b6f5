import pytest

from benchmarks.harness.diffusers_baseline import Diffusers
from stepwise.client import Client
from stepwise.description.manifest import Manifest
from stepwise.server.process import serving
from tests.support.paths import ROOT

CHECKPOINT = ROOT / "miniatures" / "sd3"


@pytest.fixture(scope="session")
def request_log(tmp_path_factory):
    """The request log of ``server``."""
    return tmp_path_factory.mktemp("log") / "requests.jsonl"


@pytest.fixture(scope="session")
def server(repository, request_log):
    """A running server with the exported miniature."""
    with serving(repository, request_log=request_log, peer_header="x-peer") as running:
        yield running


@pytest.fixture(scope="session")
def families_server(families):
    """A running server with the miniature of each family."""
    with serving(families, http_inference=True) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    return Client(server.grpc_url)


@pytest.fixture(scope="session")
def diffusers(repository):
    """diffusers on the SD3 checkpoint."""
    manifest = Manifest.read(repository / "sd3")
    return Diffusers(CHECKPOINT, manifest.tokens["t5"])
