"""Concurrent requests: cancellation, deadlines, a full queue, logs and metrics."""

import json
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import psutil
import pytest

from stepwise.families.sd3 import SD3
from tests.support import raw

PROMPT = "a large red star in the top left on a white background"
LONG = {"prompt": PROMPT, "steps": 100}
SECONDS = 10


def metrics(server):
    """The Stepwise metrics by name and labels."""
    with urllib.request.urlopen(server.metrics_url, timeout=5) as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith("stepwise")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def active(server):
    return sum(v for k, v in metrics(server).items() if "_active{" in k or "_waiting{" in k)


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.05)


def logged(server_log, request_id):
    """The request's line in the log."""

    def found():
        lines = [json.loads(line) for line in server_log.read_text().splitlines()]
        return [line for line in lines if line["id"] == request_id]

    until(found)
    assert len(found()) == 1
    return found()[0]


def cancel(stream, request_id):
    stream.send("sd3", cancel=request_id)


def test_previews_and_progress_arrive_in_order(client):
    events = list(client.generate("sd3", PROMPT, steps=20, seed=7, preview_every=5))
    steps = [event.step for event in events]
    assert steps == sorted(steps)
    previews = [event for event in events if event.kind == "preview"]
    assert [event.step for event in previews] == [5, 10, 15]
    assert {event.image.shape for event in previews} == {(64, 64, 3)}
    result = events[-1].image.astype(int)
    distance = [np.abs(event.image - result).mean() for event in previews]
    print(f"distance of previews from the result {distance} of 255, ceiling 8 for the last")
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] <= 8


def test_a_cancelled_request_ends_at_once(server, request_log):
    name = str(uuid.uuid4())
    with raw.Stream(server) as stream:
        stream.send("sd3", name, **LONG, num_images=8)
        stream.next()
        with raw.Stream(server) as other:
            cancel(other, name)
            assert other.last() is None
        assert "[CANCELLED] the request was cancelled" in stream.last()
    line = logged(request_log, name)
    assert line["outcome"] == "CANCELLED"
    assert line["mean_batch"] == 8
    until(lambda: active(server) == 0)


def test_a_cancellation_may_arrive_before_its_request(server):
    name = str(uuid.uuid4())
    with raw.Stream(server) as stream:
        cancel(stream, name)
        assert stream.last() is None
        stream.send("sd3", name, **LONG)
        assert "[CANCELLED]" in stream.last()


def test_fifty_cancellations_leave_nothing_behind(server, client):
    client.pictures("sd3", PROMPT, steps=2)
    stubs = psutil.Process(server.process.pid).children(recursive=True)
    threads = sum(stub.num_threads() for stub in stubs)
    regions = {path.name for path in Path("/dev/shm").iterdir()}
    with raw.Stream(server) as stream:
        for _ in range(50):
            name = str(uuid.uuid4())
            stream.send("sd3", name, **LONG)
            cancel(stream, name)
        ends = [stream.last() for _ in range(100)]
    assert sum(end is not None and "[CANCELLED]" in end for end in ends) == 50
    until(lambda: active(server) == 0)
    assert sum(stub.num_threads() for stub in stubs) == threads
    assert {path.name for path in Path("/dev/shm").iterdir()} == regions


@pytest.mark.parametrize("deadline_ms", [1, 150])
def test_a_late_request_is_dropped(server, request_log, deadline_ms):
    name = str(uuid.uuid4())
    with raw.Stream(server) as stream:
        stream.send("sd3", name, **LONG, num_images=8, deadline_ms=deadline_ms)
        said = stream.last()
    assert f"[DEADLINE_EXCEEDED] deadline_ms: no picture within {deadline_ms} ms" in said
    assert logged(request_log, name)["outcome"] == "DEADLINE_EXCEEDED"


def test_a_full_queue_refuses_at_once_and_accepts_again_later(server):
    names = [str(uuid.uuid4()) for _ in range(SD3.capacity // 16 + 1)]
    with raw.Stream(server) as stream:
        for name in names:
            stream.send("sd3", name, **LONG, num_images=16)
        said = stream.last()
        assert "[UNAVAILABLE] the queue is full" in said
        assert "try again later" in said
        for name in names:
            cancel(stream, name)
        for _ in range(2 * len(names) - 1):
            stream.last()
        stream.send("sd3", prompt=PROMPT, steps=2)
        assert stream.last() is None


def test_settings_and_outcomes_are_logged(server, request_log):
    good, bad = str(uuid.uuid4()), str(uuid.uuid4())
    with raw.Stream(server) as stream:
        stream.send("sd3", good, prompt=PROMPT, steps=3, client="tests")
        assert stream.last() is None
        stream.send("sd3", bad, prompt=PROMPT, steps=0)
        stream.last()
    line = logged(request_log, good)
    assert line["asked"] == {"prompt": PROMPT, "steps": 3, "client": "tests"}
    assert (line["outcome"], line["pipeline"], line["mean_batch"]) == ("DONE", "sd3", 1)
    assert {
        "time",
        "seed",
        "sampler",
        "resolution",
        "queued_ms",
        "denoising_ms",
        "decoding_ms",
    } <= (set(line))
    line = logged(request_log, bad)
    assert line["outcome"] == "INVALID_ARG"
    assert line["error"] == "steps: got 0; allowed are 1 to 100"


def test_metrics_count_steps_pictures_and_outcomes(server, client):
    labels = 'pipeline="sd3",resolution="96x48"'
    client.pictures("sd3", PROMPT, steps=5, num_images=3, height=48, width=96)
    done = f'stepwise_requests_total{{outcome="done",{labels}}}'
    until(lambda: done in metrics(server))
    seen = metrics(server)
    steps, pictures = (
        seen[f"stepwise_{name}_total{{{labels}}}"] for name in ("steps", "step_pictures")
    )
    assert pictures / steps == 3
    assert seen[f"stepwise_step_seconds_total{{{labels}}}"] > 0
    assert seen[done] == 1


@pytest.mark.parametrize("path", ["generate", "generate_stream", "infer"])
def test_http_takes_no_requests_unless_it_is_opened(server, path):
    request = urllib.request.Request(
        f"{server.http_url}/v2/models/sd3/{path}", json.dumps(LONG).encode(), method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=SECONDS)
    assert refused.value.code == 403
    with urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=SECONDS) as ready:
        assert ready.status == 200
