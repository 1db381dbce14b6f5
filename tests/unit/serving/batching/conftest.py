import pytest

from tests.support.batching import Bench


@pytest.fixture
def bench():
    return Bench()
