from pathlib import Path

import pytest

from stepwise.client import Client
from stepwise.server.process import serving
from tests.support import mock_events
from tests.support.servers import dying


@pytest.fixture(scope="package")
def repository(tmp_path_factory) -> Path:
    return mock_events.build(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="package")
def server(repository):
    with serving(repository) as running:
        yield running


@pytest.fixture(scope="package")
def full(tmp_path_factory):
    """A server with a full queue."""
    with serving(mock_events.build(tmp_path_factory.mktemp("full"), full=True)) as running:
        yield running


@pytest.fixture
def doomed(repository):
    """A server that tests may kill."""
    with dying(repository) as running:
        yield running


@pytest.fixture
def client(server):
    return Client(server.grpc_url)
