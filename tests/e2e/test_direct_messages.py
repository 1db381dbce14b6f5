"""Messages that go to an inner model without the ensemble: signed ones alone are taken."""

import json
import threading
import uuid

import numpy as np
import pytest

from stepwise.client import Client
from stepwise.families.sd3 import SD3
from tests.support import inner, raw

PROMPT = inner.PROMPT
# Fields of the settings and other values for them.
CHANGED = (
    ("priority", 99),
    ("client", [1]),
    ("num_images", 2.5),
    ("num_images", 0),
    ("num_images", 10**9),
    ("batch_cap", "x"),
    ("guidance_rescale", "x"),
    ("steps", -1),
    ("latent_shape", [16, 10**6, 10**6]),
    ("deadline", None),
    ("sampler", "../euler"),
    ("colour", "red"),
)


@pytest.fixture(scope="module")
def messages(server):
    """A well-formed message to each model of SD3."""
    return inner.Pipeline(server, SD3).walk()


@pytest.fixture(scope="module")
def alone(client):
    """The neighbour's picture without messages next to it."""
    return client.pictures("sd3", PROMPT, steps=30, seed=5)[0].image


@pytest.fixture
def neighbour(client, alone):
    """Draws a picture during the test, which must be the one that it draws alone."""
    drawn = []
    thread = threading.Thread(
        target=lambda: drawn.append(client.pictures("sd3", PROMPT, steps=30, seed=5)[0].image)
    )
    thread.start()
    yield
    thread.join()
    difference = np.abs(alone.astype(int) - drawn[0]).max()
    print(f"the neighbour's picture differs by {difference} of 255, ceiling 1")
    assert difference <= 1


def answer(server, message, request_id=None, **changed):
    """The error of a message with changed tensors; None in place of a tensor leaves it out."""
    tensors = {k: v for k, v in {**message.tensors, **changed}.items() if v is not None}
    with raw.Stream(server) as stream:
        stream.send(
            message.model, message.request_id if request_id is None else request_id, **tensors
        )
        return stream.last()


def with_field(signed, name, value):
    """The signed settings with one field changed, under their old signature."""
    line = inner.unsigned(signed)
    fields = {**json.loads(line), name: value}
    return raw.one((signed[0][: -len(line)] + json.dumps(fields).encode()).decode())


def test_the_models_accept_each_others_messages_for_one_request(server, messages):
    assert answer(server, messages["sd3_encode"]) is None
    assert answer(server, messages["sd3_denoise"]) is None


@pytest.mark.parametrize("part", ["encode", "denoise"])
def test_changed_settings_are_refused(server, messages, neighbour, part):
    message = messages[f"sd3_{part}"]
    for name, value in CHANGED:
        changed = with_field(message.tensors["settings"], name, value)
        said = answer(server, message, settings=changed)
        assert "[INVALID_ARG] settings: got" in said, f"{name} {value!r}: {said}"


@pytest.mark.parametrize("part", ["encode", "denoise", "decode"])
def test_a_message_works_for_no_other_request(server, messages, part):
    other = answer(server, messages[f"sd3_{part}"], request_id=str(uuid.uuid4()))
    assert "without the signature" in other
    assert "send requests to the ensemble sd3" in other


@pytest.mark.parametrize(
    ("part", "tensor", "value"),
    [
        ("encode", "t5_ids", np.full((1, 20), 10**9, np.int64)),
        ("encode", "t5_ids", np.zeros((1, 100_000), np.int64)),
        ("denoise", "t5_hidden_states", np.zeros((1, 100_000, 64), np.float32)),
        ("denoise", "clip_l_pooled", np.zeros((1, 0), np.float32)),
        ("denoise", "clip_l_pooled", None),
        ("decode", "latents", np.zeros((16, 4096, 64), np.float32)),
    ],
)
def test_other_tensors_are_refused(server, messages, neighbour, part, tensor, value):
    said = answer(server, messages[f"sd3_{part}"], **{tensor: value})
    assert "[INVALID_ARG]" in said
    assert "send requests to the ensemble sd3" in said


def test_an_invented_message_writes_no_line_of_the_log(server, messages, request_log):
    # Requests of earlier tests may still write theirs.
    names = ("forged", *(message.request_id for message in messages.values()))

    def written():
        lines = request_log.read_text().splitlines()
        return [line for line in lines if any(name in line for name in names)]

    before = written()
    assert before, "the request of the messages is in the log"
    settings = with_field(messages["sd3_encode"].tensors["settings"], "asked", {"prompt": "forged"})
    for part in ("encode", "denoise"):
        assert "settings: got" in answer(server, messages[f"sd3_{part}"], settings=settings)
    forged = {"record": {"id": "forged", "outcome": "DONE"}, "kind": "result"}
    event = with_field(messages["sd3_decode"].tensors["event"], "record", forged)
    assert "event: got" in answer(server, messages["sd3_decode"], event=event)
    for text in ("{}", "", '{"cancel": "x"}', "null"):
        said = answer(server, messages["sd3_decode"], event=raw.one(text))
        assert "[INVALID_ARG] event: got" in said
    assert written() == before


@pytest.mark.parametrize("name", ["", "1", "job-2026-11-30"])
def test_an_id_that_others_can_guess_cancels_nothing(server, name):
    with raw.Stream(server) as stream, raw.Stream(server) as stranger:
        stream.send("sd3", name, prompt=PROMPT, steps=30)
        assert stream.next()[1] is None
        stranger.send("sd3_denoise", cancel=name)
        assert "which others can guess" in stranger.last()
        assert stream.last() is None


def test_two_clients_may_use_the_same_short_id(server):
    with raw.Stream(server) as one, raw.Stream(server) as other:
        for each in (one, other):
            each.send("sd3", "1", prompt=PROMPT, steps=20)
        assert [one.last(), other.last()] == [None, None]


def test_an_unknown_parameter_is_refused(server):
    with raw.Stream(server) as stream:
        stream.send("sd3", prompt=PROMPT, parameters={"stepz": 4})
        assert "stepz: there is no such setting; allowed are prompt" in stream.last()


@pytest.mark.parametrize("model", ["sd3_encode", "sd3_denoise", "sd3_decode", "sd3_prepare"])
def test_a_message_without_tensors_gets_an_answer(server, model):
    with raw.Stream(server) as stream:
        stream.send(model)
        assert stream.last() is not None


def test_only_the_front_names_a_peer(server):
    """A client's own parameter of the header's name is replaced by the front's header."""
    message = {"prompt": PROMPT, "parameters": {"x-peer": "forged"}}
    with raw.Stream(server, headers={"x-peer": "10.0.0.7"}) as stream:
        stream.send("sd3_prepare", **message)
        result, error = stream.next()
    assert error is None
    assert json.loads(inner.unsigned(result.as_numpy("settings")))["peer"] == "10.0.0.7"


def test_the_pipeline_serves_after_all_of_it(server):
    assert server.process.poll() is None
    with Client(server.grpc_url) as client:
        assert client.pictures("sd3", PROMPT, steps=1)[0].image.shape == (64, 64, 3)
