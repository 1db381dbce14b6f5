"""Signs the messages between the models of a pipeline, which anybody can send to a model.

A signature covers the purpose of a message, its pipeline, the request's ID and the tensors next to
it, so that a message works for no other model, request or tensors.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping

import numpy as np

from stepwise.description.errors import InvalidRequest
from stepwise.description.fields import Array

# By purpose: the tensor that carries the message, and the model that sends it.
_SENDERS = {
    "prepared": ("settings", "prepare"),
    "encoded": ("settings", "encode"),
    "event": ("event", "denoise"),
    "decoded": ("decoded", "decode"),
}
# Characters of a signature, before its message.
DIGITS = 2 * hashlib.sha256().digest_size


class Signer:
    """Signs and checks messages with a key that the models of one server share."""

    def __init__(self, key: bytes, pipeline: str) -> None:
        self._key = key
        self._pipeline = pipeline

    def sign(self, purpose: str, request_id: str, message: str, tensors: bytes = b"") -> Array:
        """The signed message as a tensor of one element; ``tensors`` comes from ``shapes`` or
        ``values``.
        """
        signed = self._digits(purpose, request_id, message.encode(), tensors) + message.encode()
        return np.asarray([signed], np.object_)

    def check(self, purpose: str, request_id: str, signed: bytes, tensors: bytes = b"") -> bytes:
        """The message in ``signed``. Raises InvalidRequest unless its signature fits."""
        digits, message = signed[:DIGITS], signed[DIGITS:]
        if not hmac.compare_digest(digits, self._digits(purpose, request_id, message, tensors)):
            name, sender = _SENDERS[purpose]
            raise InvalidRequest(
                f"{name}: got {signed[:80]!r} without the signature of {self._pipeline}_{sender} "
                f"for this request; send requests to the ensemble {self._pipeline}"
            )
        return message

    def _digits(self, purpose: str, request_id: str, message: bytes, tensors: bytes) -> bytes:
        total = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (purpose.encode(), self._pipeline.encode(), request_id.encode(), tensors):
            total.update(len(part).to_bytes(8, "little") + part)
        total.update(message)
        return total.hexdigest().encode()


def shapes(tensors: Mapping[str, Array], names: Iterable[str]) -> bytes:
    """The types and shapes of the tensors called ``names`` that are there, for a signature."""
    there = (name for name in names if name in tensors)
    return "\0".join(
        f"{name} {tensors[name].dtype.str} {tensors[name].shape}" for name in there
    ).encode()


def values(tensors: Mapping[str, Array], names: Iterable[str]) -> bytes:
    """As ``shapes``, with a digest of the values."""
    names = tuple(names)
    total = hashlib.sha256()
    for name in names:
        if name in tensors:
            total.update(tensors[name].tobytes())
    return shapes(tensors, names) + total.digest()
