"""Well-formed messages with one changed field, to every model of a pipeline, its graphs included.

``FUZZ_EXAMPLES`` sets their number, as in ``test_fuzz``.
"""

import json
import os
import random
import threading
from collections import Counter

import numpy as np
import pytest

from stepwise.client import Client
from tests.support import raw
from tests.support.messages import PROMPT, messages

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
# Values for a field of JSON, or for all elements of a tensor.
ODD = (None, True, -1, 0, 99, 2.5, 10**9, float("nan"), "", "x", [], [1], {"a": 1})
NUMBERS = (0, -1, 1, 99, 2**31 - 1, float("nan"), float("inf"))


def changed(message, chance):
    """The tensors of a message with one change, and its description."""
    tensors = dict(message.tensors)
    name = chance.choice(sorted(tensors))
    value = tensors[name] if isinstance(tensors[name], np.ndarray) else raw.one(tensors[name])
    how = chance.choice(CHANGES)
    tensors[name] = how(value, chance)
    if tensors[name] is None:
        del tensors[name]
    return tensors, f"{message.model}: {how.__name__} of {name}"


def no_tensor(value, chance):
    return None


def another_type(value, chance):
    dtype = chance.choice([np.int32, np.int64, np.float32, np.uint8, np.object_])
    if dtype is np.object_:
        return np.full(value.shape, b"x", np.object_)
    return np.zeros(value.shape, dtype)


def another_shape(value, chance):
    shape = list(value.shape)
    place = chance.randrange(len(shape))
    shape[place] = chance.choice([0, 1, 2, 7, shape[place] + 1])
    return np.resize(value, shape) if value.size else np.zeros(shape, value.dtype)


def more_dims(value, chance):
    return value[None]


def another_value(value, chance):
    if value.dtype == np.object_:
        return np.full(value.shape, text(value.reshape(-1)[0], chance), np.object_)
    with np.errstate(invalid="ignore"):
        odd = np.asarray(chance.choice(NUMBERS)).astype(value.dtype)
    return np.full(value.shape, odd, value.dtype)


CHANGES = (no_tensor, another_type, another_shape, more_dims, *[another_value] * 4)


def text(value, chance):
    """Text with a flipped bit, or, if it holds JSON, with one other field."""
    data = value if isinstance(value, bytes) else str(value).encode()
    head, brace, line = data.partition(b"{")
    if not brace or chance.random() < 0.3:
        flipped = bytearray(data or b" ")
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    fields = json.loads(brace + line)
    fields[chance.choice([*fields, "colour"])] = chance.choice(ODD)
    return head + json.dumps(fields).encode()


@pytest.mark.parametrize("family", ["sd3", "easyanimate_i2v"])
def test_every_message_with_one_changed_field_gets_a_response(families, families_server, family):
    sent = messages(families, family)
    client = Client(families_server.grpc_url)
    chance, stop, drawn = random.Random(1), threading.Event(), []

    def picture():
        return client.pictures("sd3", PROMPT, steps=6, seed=99)[0].image.astype(int)

    def neighbour():
        while not stop.is_set():
            drawn.append(picture())

    alone = picture()
    thread = threading.Thread(target=neighbour)
    thread.start()
    said = Counter()
    try:
        for number in range(EXAMPLES):
            message = sent[number % len(sent)]
            tensors, described = changed(message, chance)
            try:
                with raw.Stream(families_server) as stream:
                    stream.send(message.model, **tensors)
                    said["answered" if stream.last() is None else "refused"] += 1
            except Exception as error:
                pytest.fail(f"{described}: {error!r}")
    finally:
        stop.set()
        thread.join()
    differences = [np.abs(image - alone).max() for image in drawn]
    print(f"{dict(said)} of {len(sent)} models; {len(drawn)} pictures of a neighbour differ by")
    print(f"at most {max(differences)} of 255, ceiling 1")
    assert said.total() == EXAMPLES
    assert said["refused"] > EXAMPLES // 2
    assert max(differences) <= 1
    assert families_server.process.poll() is None
