import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stepwise.encoding.embedding_cache import EmbeddingCache


def ids(*values, dtype=np.int64):
    return {"ids": np.asarray([values], dtype)}


class Encoder:
    """Returns ``size`` bytes, and counts its calls."""

    def __init__(self, size=100):
        self.calls = 0
        self.size = size

    def __call__(self):
        self.calls += 1
        return {"hidden_states": np.full(self.size, self.calls, np.uint8)}


def test_equal_inputs_are_encoded_once():
    cache, encoder = EmbeddingCache(1000), Encoder()
    first, second = (cache.get("t5", ids(1, 2), encoder) for _ in range(2))
    assert first is second
    assert (encoder.calls, cache.hits, cache.misses) == (1, 1, 1)


def test_a_lookup_finds_kept_outputs_and_encodes_nothing():
    cache, encoder = EmbeddingCache(1000), Encoder()
    assert cache.kept("t5", ids(1, 2)) is None
    assert (cache.hits, cache.misses) == (0, 0)
    encoded = cache.get("t5", ids(1, 2), encoder)
    assert cache.kept("t5", ids(1, 2)) is encoded
    assert cache.kept("clip_l", ids(1, 2)) is None
    assert (encoder.calls, cache.hits, cache.misses) == (1, 1, 1)


@pytest.mark.parametrize(
    ("encoder", "inputs"),
    [
        ("clip_l", ids(1, 2)),
        ("t5", ids(1, 3)),
        ("t5", ids(1, 2, 0)),
        ("t5", ids(1, 2, dtype=np.int32)),
        ("t5", {"ids": np.asarray([[1], [2]])}),
        ("t5", ids(1, 2) | {"clip_skip": np.asarray([[0]])}),
        ("t5", {"tokens": np.asarray([[1, 2]])}),
    ],
)
def test_inputs_that_differ_in_anything_are_encoded_apart(encoder, inputs):
    cache, encode = EmbeddingCache(1000), Encoder()
    cache.get("t5", ids(1, 2), encode)
    cache.get(encoder, inputs, encode)
    assert encode.calls == 2


@pytest.mark.parametrize("limit", [0, 99, 100, 250, 1000])
def test_memory_is_bounded_and_the_least_recently_used_goes_first(limit):
    cache, encode = EmbeddingCache(limit), Encoder(size=100)
    rng, recent = np.random.default_rng(0), []
    for value in rng.integers(0, 12, 500):
        before = encode.calls
        cache.get("t5", ids(value), encode)
        assert (encode.calls == before) == (value in recent)
        recent = [*(other for other in recent if other != value), value]
        recent = recent[len(recent) - min(limit // 100, len(recent)) :]
        assert cache.size == 100 * len(recent) <= limit


def test_calls_that_overlap_share_one():
    cache, encode, go = EmbeddingCache(1000), Encoder(), threading.Event()

    def slow():
        assert go.wait(10)
        return encode()

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.get, "t5", ids(1), slow) for _ in range(8)]
        go.set()
        outputs = {id(each.result()) for each in waiting}
    assert len(outputs) == encode.calls == cache.misses == 1
    assert cache.hits == 7


def test_an_error_reaches_all_that_wait_for_it_and_is_not_kept():
    cache, entered, go = EmbeddingCache(1000), threading.Event(), threading.Event()

    def failing():
        entered.set()
        assert go.wait(10)
        raise ValueError("no memory")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "t5", ids(1), failing)
        assert entered.wait(10)
        second = pool.submit(cache.get, "t5", ids(1), failing)
        while cache.hits == 0:
            pass
        go.set()
        for each in (first, second):
            with pytest.raises(ValueError, match="no memory"):
                each.result()
    assert cache.get("t5", ids(1), Encoder())["hidden_states"][0] == 1
