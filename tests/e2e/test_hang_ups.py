"""Clients that hang up without a message: their requests end, whether they run or wait."""

import http.client
import json
from contextlib import closing

import numpy as np
import pytest

from tests.e2e.test_serving import SECONDS, active, until
from tests.support import raw

PROMPT = "a large red star in the top left on a white background"
LONG = {"prompt": PROMPT, "steps": 100, "num_images": 16}


def hang_up_grpc(server, **more):
    with raw.Stream(server) as stream:
        stream.send("sd3", **LONG, **more)
        assert stream.next()[1] is None
        until(lambda: active(server) >= 16)


def hang_up_http(server, **more):
    host = server.http_url.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=SECONDS)) as connection:
        connection.request("POST", "/v2/models/sd3/generate_stream", json.dumps({**LONG, **more}))
        with closing(connection.getresponse()) as response:
            assert b'"kind":"progress"' in response.readline()
            until(lambda: active(server) >= 16)


@pytest.mark.parametrize("hang_up", [hang_up_grpc, hang_up_http])
def test_a_request_ends_when_its_client_hangs_up(families_server, hang_up):
    until(lambda: active(families_server) == 0)
    hang_up(families_server)
    until(lambda: active(families_server) == 0)


def test_a_request_that_waits_ends_too(families_server):
    with raw.Stream(families_server) as busy:
        busy.send("sd3", "a" * 32, **LONG)
        assert busy.next()[1] is None
        with raw.Stream(families_server) as waiting:
            waiting.send("sd3", **{**LONG, "num_images": 8})
            result, error = waiting.next()
            assert error is None
            assert result.as_numpy("step")[0] == 0
            until(lambda: active(families_server) == 24)
        until(lambda: active(families_server) <= 16)
        with raw.Stream(families_server) as stranger:
            stranger.send("sd3", cancel="a" * 32)
            assert stranger.last() is None
    until(lambda: active(families_server) == 0)


def post(server, path, **fields):
    """The status and the text of an HTTP request."""
    host = server.http_url.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(fields))
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_generate_over_http_returns_one_picture_without_progress(families_server):
    path = "/v2/models/sd3/generate"
    status, text = post(families_server, path, prompt=PROMPT, steps=2, seed=7, progress=False)
    assert status == 200
    found = json.loads(text)
    assert (found["kind"], found["used_seed"], len(found["image"])) == ("result", 7, 64 * 64 * 3)


def test_a_misspelt_field_over_http_is_refused(families_server):
    path = "/v2/models/sd3/generate"
    status, text = post(families_server, path, prompt=PROMPT, stepz=2, progress=False)
    assert status == 400
    assert "stepz: there is no such setting; allowed are prompt, " in text


def test_requests_that_wait_for_an_encoder_can_be_cancelled(families_server):
    """One request at a time encodes images, so the later ones wait in front of the encoders."""
    asked = {"prompt": PROMPT, "steps": 100, "frames": 145, "height": 64, "width": 64}
    asked["start_image"] = np.full((64, 64, 3), 200, np.uint8)
    names = [f"{number:032}" for number in range(16)]
    with raw.Stream(families_server) as stream:
        for name in names:
            stream.send("easyanimate_i2v", name, **asked)
        for name in names:
            with raw.Stream(families_server) as other:
                other.send("easyanimate_i2v", cancel=name)
                assert other.last() is None
        ends = [stream.last() for _ in names]
    assert ["[CANCELLED]" in str(end) for end in ends] == [True] * len(names)
