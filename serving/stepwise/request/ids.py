"""The IDs of requests. Whoever knows an ID can cancel its request, so an ID must be unguessable."""

import uuid

# Fewer characters, such as a counter's or a date's, can be guessed.
SHORTEST = 20


def can_be_guessed(request_id: str) -> bool:
    """Whether others may know the ID without having seen it."""
    return len(request_id) < SHORTEST


def private(request_id: str) -> str:
    """An ID that only its client knows: the client's own, or an unknown one that begins with it.

    Clients that number their requests can so use the same IDs at the same time.
    """
    if not can_be_guessed(request_id):
        return request_id
    drawn = uuid.uuid4().hex
    return f"{request_id}#{drawn}" if request_id else drawn
