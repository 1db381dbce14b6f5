"""Text embeddings of recent prompts, so that a repeated prompt costs no encoder call."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from stepwise.description.fields import Array

Outputs = Mapping[str, Array]


class EmbeddingCache:
    """The outputs of text encoders by their inputs, least recently used first out.

    Holds ``max_bytes`` of arrays at most; larger outputs are returned and not kept. Calls with
    equal inputs that overlap share one encoder call. Safe to use from several threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, Outputs] = OrderedDict()
        self._running: dict[bytes, Future[Outputs]] = {}
        self._lock = threading.Lock()
        # Bytes of the arrays that are kept.
        self.size = 0
        # Calls that shared or needed no encoder call, and encoder calls.
        self.hits = 0
        self.misses = 0

    def get(
        self, encoder: str, inputs: Mapping[str, Array], encode: Callable[[], Outputs]
    ) -> Outputs:
        """The outputs of ``encoder`` for ``inputs``, from ``encode()`` if they are not kept.

        Raises the error of ``encode``, which is not kept; calls that wait for it raise it too.
        """
        key = _digest(encoder, inputs)
        with self._lock:
            running = self._running.get(key)
            kept = self._kept.get(key)
            if running is None and kept is None:
                self.misses += 1
                self._running[key] = Future()
            else:
                self.hits += 1
        if kept is not None:
            return self._used(key, kept)
        if running is not None:
            return running.result()
        return self._encode(key, encode)

    def kept(self, encoder: str, inputs: Mapping[str, Array]) -> Outputs | None:
        """The outputs of ``encoder`` for ``inputs`` if they are kept, without waiting."""
        key = _digest(encoder, inputs)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self.hits += 1
        return None if kept is None else self._used(key, kept)

    def _encode(self, key: bytes, encode: Callable[[], Outputs]) -> Outputs:
        try:
            outputs = encode()
        except BaseException as error:
            with self._lock:
                running = self._running.pop(key)
            running.set_exception(error)
            raise
        with self._lock:
            running = self._running.pop(key)
            self._keep(key, outputs)
        running.set_result(outputs)
        return outputs

    def _used(self, key: bytes, kept: Outputs) -> Outputs:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
        return kept

    def _keep(self, key: bytes, outputs: Outputs) -> None:
        size = _bytes(outputs)
        if size > self._max_bytes:
            return
        self._kept[key] = outputs
        self.size += size
        while self.size > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.size -= _bytes(dropped)


def _bytes(outputs: Outputs) -> int:
    return sum(array.nbytes for array in outputs.values())


def _digest(encoder: str, inputs: Mapping[str, Array]) -> bytes:
    """A key of everything that decides an encoder's outputs: values, shapes and types."""
    total = hashlib.sha256(encoder.encode())
    for name in sorted(inputs):
        array = inputs[name]
        total.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        total.update(array.tobytes())
    return total.digest()
