"""Messages that no client of ours sends: to other models, with IDs and parameters of any kind."""

import json
import uuid

import pytest

from stepwise.client import Client
from tests.e2e.test_serving import until
from tests.support import raw
from tests.support.messages import PROMPT


@pytest.mark.parametrize("model", ["sd3_prepare", "sd3_encode", "sd3_denoise", "sd3_decode"])
def test_a_pipeline_has_no_models_but_its_own_and_its_graphs(server, model):
    with raw.Stream(server) as stream:
        stream.send(model, prompt=PROMPT)
        assert f"Request for unknown model: '{model}' is not found" in stream.last()


@pytest.mark.parametrize("name", ["", "1", "job-2026-11-30"])
def test_an_id_that_others_can_guess_cancels_nothing(server, name):
    with raw.Stream(server) as stream, raw.Stream(server) as stranger:
        stream.send("sd3", name, prompt=PROMPT, steps=30)
        assert stream.next()[1] is None
        stranger.send("sd3", cancel=name)
        assert "which others can guess" in stranger.last()
        assert stream.last() is None


def test_two_clients_may_use_the_same_short_id(server):
    with raw.Stream(server) as one, raw.Stream(server) as other:
        for each in (one, other):
            each.send("sd3", "1", prompt=PROMPT, steps=20)
        assert [one.last(), other.last()] == [None, None]


def test_the_id_of_an_active_request_is_refused(server):
    name = str(uuid.uuid4())
    with raw.Stream(server) as one, raw.Stream(server) as other:
        one.send("sd3", name, prompt=PROMPT, steps=60)
        assert one.next()[1] is None
        other.send("sd3", name, prompt=PROMPT, steps=1)
        assert f"request id: got '{name}', which an active request has" in other.last()
        assert one.last() is None


def test_a_cancellation_with_settings_is_a_cancellation(server):
    name = str(uuid.uuid4())
    with raw.Stream(server) as one, raw.Stream(server) as other:
        one.send("sd3", name, prompt=PROMPT, steps=100)
        assert one.next()[1] is None
        other.send("sd3", prompt=PROMPT, cancel=name)
        assert other.last() is None
        assert "[CANCELLED]" in one.last()


def test_an_unknown_parameter_is_refused(server):
    with raw.Stream(server) as stream:
        stream.send("sd3", prompt=PROMPT, parameters={"stepz": 4})
        assert "stepz: there is no such setting; allowed are prompt" in stream.last()


def test_a_message_without_tensors_gets_an_answer(server):
    with raw.Stream(server) as stream:
        stream.send("sd3")
        assert "[INVALID_ARG] prompt: got none" in stream.last()


def test_only_the_front_names_a_peer(server, request_log):
    """A client's own parameter of the header's name is replaced by the front's header."""
    name = str(uuid.uuid4())
    with raw.Stream(server, headers={"x-peer": "10.0.0.7"}) as stream:
        stream.send("sd3", name, prompt=PROMPT, steps=1, parameters={"x-peer": "forged"})
        assert stream.last() is None

    def lines():
        written = (json.loads(line) for line in request_log.read_text().splitlines())
        return [line for line in written if line["id"] == name]

    until(lines)
    assert [line["peer"] for line in lines()] == ["10.0.0.7"]


def test_the_pipeline_serves_after_all_of_it(server):
    assert server.process.poll() is None
    with Client(server.grpc_url) as client:
        assert client.pictures("sd3", PROMPT, steps=1)[0].image.shape == (64, 64, 3)
