"""Generated requests: each returns a picture or an error that names a field, and leaks nothing.

``FUZZ_EXAMPLES`` sets their number; ``make test-all`` sends 150 and ``make fuzz`` 2,000.
"""

import os
import re
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient import grpc

from stepwise.client import Client
from stepwise.families import FAMILIES
from tests.e2e.test_bad_input import PROMPT, send

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
WARM_UP = 50
SPARE_THREADS = 8
SPARE_SHARED_MB = 8.0
NUMPY = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BYTES": np.object_,
}

shapes = st.sampled_from([*[(1,)] * 16, (0,), (2,), (1, 1), (3, 2)])
dtypes = st.sampled_from([np.bool_, np.int32, np.int64, np.float32, np.uint8, np.object_])
texts = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=60).map(str.encode),
    st.sampled_from([b"euler", b"../../etc/passwd", b"__import__('os')", b"<|endoftext|>" * 30]),
)
usual = {
    "steps": st.integers(1, 3),
    "num_images": st.integers(1, 2),
    "height": st.sampled_from([32, 48, 64, 96]),
    "width": st.sampled_from([32, 80, 64]),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "guidance_scale": st.floats(0, 30, width=32),
    "prompt": st.text("abc ", min_size=1).map(lambda words: f"star {words}".encode()),
    "sampler": st.just(b"euler"),
    "preview_every": st.integers(0, 3),
    "deadline_ms": st.integers(60_000, 2**31 - 1),
    "priority": st.integers(0, 2),
    "client": st.text(max_size=20).map(str.encode),
    "bucket": st.sampled_from([b"48x80", b"64x64", b"3:2", b"1:0"]),
    "clip_skip": st.integers(0, 2),
    **dict.fromkeys(("original_size", "crop", "target_size"), st.integers(0, 16384)),
}
odd = {
    np.int32: st.integers(-(2**31), 2**31 - 1),
    np.int64: st.integers(-(2**63), 2**63 - 1),
    np.float32: st.floats(width=32),
    np.uint8: st.integers(0, 255),
    np.bool_: st.booleans(),
    np.object_: texts,
}


@st.composite
def tensors(draw, family):
    """Request tensors by name: mostly valid, some with a wrong value, type or shape."""
    known = {tensor.name: tensor for tensor in FAMILIES[family].request}
    chosen = {"prompt": np.full((1,), PROMPT.encode(), np.object_), "steps": _one(2, np.int32)}
    for field in draw(st.lists(st.sampled_from([*known, "colour"]), max_size=4, unique=True)):
        right, dims = (known[field].dtype, known[field].dims) if field in known else ("FP32", (1,))
        dtype = NUMPY[right] if draw(st.integers(0, 4)) else draw(dtypes)
        values = usual[field] if field in usual and draw(st.integers(0, 3)) else odd[dtype]
        shape = draw(shapes)
        try:
            value = np.full(dims if shape == (1,) else shape, draw(values), dtype)
        except (OverflowError, ValueError, TypeError):
            value = np.full((1,), draw(odd[dtype]), dtype)
        chosen[field] = value
    if draw(st.integers(0, 19)) == 0:
        del chosen["prompt"]
    return chosen


def _one(value, dtype):
    return np.full((1,), value, dtype)


def footprint(server):
    """Counts that leaks would raise: pending requests, processes, threads, and memory in MB."""
    with urllib.request.urlopen(server.metrics_url) as page:
        pending = re.findall(
            r"^nv_inference_pending_request_count\{.*\} (\S+)", page.read().decode(), re.MULTILINE
        )
    assert pending
    triton = psutil.Process(server.pid)
    processes = [triton, *triton.children()]
    regions = Path("/dev/shm").glob(f"{server.settings.shm_prefix}*")
    return {
        "pending": sum(map(float, pending)),
        "processes": len(processes),
        "threads": sum(process.num_threads() for process in processes),
        "shared_mb": sum(path.stat().st_blocks * 512 for path in regions) / 1e6,
        "memory_mb": sum(process.memory_full_info().uss for process in processes) / 1e6,
    }


@pytest.fixture(params=["sd3", "sdxl"])
def fuzzed(request, families_server):
    """A family, and a server that serves it without a request log."""
    return request.param, families_server


def test_every_generated_request_gets_a_response_and_leaks_nothing(fuzzed):
    family, server = fuzzed
    client = Client(server.grpc_url)

    def control():
        return client.pictures(family, PROMPT, steps=6, seed=99)[0].image

    answers = {"pictures": 0, "errors": 0}

    def run(examples):
        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(tensors(family))
        def ask(asked):
            if asked["steps"].dtype == np.int32 and 4 < asked["steps"].max(initial=0) <= 100:
                asked["steps"] = _one(3, np.int32)
            message = send(server, family, **asked)
            answers["pictures" if message is None else "errors"] += 1
            assert message is None or any(field in message for field in [*asked, "prompt"]), message

        ask()

    image = control()
    # Let pools and buffers grow to their final size.
    run(WARM_UP)
    before = footprint(server)
    run(EXAMPLES)
    assert np.array_equal(image, control())
    after = footprint(server)
    print(f"{answers}; the control picture is bit-identical")
    print(f"before {before}\nafter  {after}")
    assert min(answers.values()) > EXAMPLES // 20
    assert after["pending"] == 0
    assert after["processes"] == before["processes"]
    assert after["threads"] <= before["threads"] + SPARE_THREADS
    assert after["shared_mb"] <= before["shared_mb"] + SPARE_SHARED_MB
    with grpc.InferenceServerClient(server.grpc_url) as triton:
        assert triton.is_server_ready()
        assert all(triton.is_model_ready(model) for model in server.settings.models)
