import pytest

from tests.unit.pipelines.inflight.build import Bench


@pytest.fixture
def bench():
    return Bench()
