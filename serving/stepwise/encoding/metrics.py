"""The embedding cache on Triton's metrics port, by pipeline."""

from stepwise.encoding.embedding_cache import EmbeddingCache
from stepwise.request.metrics import Key, Source, key

_CALLS = "stepwise_embedding_cache_calls_total"
_BYTES = "stepwise_embedding_cache_bytes"
_DESCRIBED = {
    _CALLS: ("COUNTER", "Prompts per text encoder, by outcome: hit, or miss and encoded"),
    _BYTES: ("GAUGE", "Bytes of embeddings that the cache holds"),
}


def cache_metrics(pipeline: str, cache: EmbeddingCache) -> Source:
    """What there is to report of ``cache``."""

    def sample() -> dict[Key, float]:
        return {
            key(_CALLS, pipeline=pipeline, outcome="hit"): cache.hits,
            key(_CALLS, pipeline=pipeline, outcome="miss"): cache.misses,
            key(_BYTES, pipeline=pipeline): cache.size,
        }

    return Source(_DESCRIBED, sample)
