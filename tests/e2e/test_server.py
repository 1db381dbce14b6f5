"""The server on a small repository: onnxruntime backend, failures, draining and cleanup."""

import queue
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from stepwise.server.errors import PortTaken, TritonFailed
from stepwise.server.flags import KEY_HEADER
from stepwise.server.process import Server, serving
from stepwise.server.repository import Exported
from stepwise.server.smoke_request import picture_problem
from tests.support import mock_pipeline
from tests.support.command import Command, left


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    return mock_pipeline.build(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def server(repository) -> Iterator[Server]:
    with serving(repository) as running:
        yield running
    assert left(running.pid, running.settings.shm_prefix) == []


@pytest.fixture
def triton(server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.grpc_url) as client:
        yield client


def tensor(name, dtype, values) -> InferInput:
    data = np.asarray(values, triton_to_np_dtype(dtype))
    made = InferInput(name, data.shape, dtype)
    made.set_data_from_numpy(data)
    return made


def test_batches_requests_that_arrive_together(triton):
    def square(value):
        answer = triton.infer("mock_square", [tensor("x", "FP32", [[value, -value]])])
        return answer.as_numpy("y").tolist()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(square, range(8)))
    assert answers == [[[value**2, value**2]] for value in range(8)]
    statistics = triton.get_inference_statistics("mock_square").model_stats[0]
    assert statistics.execution_count < statistics.inference_count


def test_passes_every_dtype(triton):
    values = {
        name: [[0, 1, 1]] if name == "BOOL" else [[0, 1, 100]] for name in mock_pipeline.TYPES
    }
    inputs = [tensor(f"in_{name}", name, values[name]) for name in mock_pipeline.TYPES]
    answer = triton.infer("mock_types", inputs)
    for name in mock_pipeline.TYPES:
        output = answer.as_numpy(f"out_{name}")
        assert output.dtype == triton_to_np_dtype(name)
        assert output.tolist() == values[name]


def test_returns_only_requested_outputs(triton):
    inputs = [tensor(f"in_{name}", name, [[1, 1, 0]]) for name in mock_pipeline.TYPES]
    answer = triton.infer("mock_types", inputs, outputs=[InferRequestedOutput("out_FP16")])
    assert [output.name for output in answer.get_response().outputs] == ["out_FP16"]


def test_an_error_affects_only_its_request(triton):
    def look_up(index):
        try:
            answer = triton.infer("mock_lookup", [tensor("ids", "INT64", [[index]])])
        except InferenceServerException as error:
            return error.message()
        return answer.as_numpy("values").item()

    with ThreadPoolExecutor(4) as pool:
        first, second, third, broken = pool.map(look_up, [1, 2, 3, 9])
    assert (first, second, third) == (10.0, 20.0, 30.0)
    assert "mock_lookup cannot run on ids [1, 1]" in broken
    assert "9" in broken
    assert look_up(0) == 0.0


def test_check_reports_whether_a_picture_is_made(server):
    assert list(picture_problem(server.grpc_url, Exported("mock", Path(), {"graphs": {}}))) == []
    (problem,) = picture_problem(server.grpc_url, Exported("nobody", Path(), {"graphs": {}}))
    assert "nobody" in problem


CONTROL_GRPC = {
    "load": lambda triton, **key: triton.load_model("mock_square", **key),
    "unload": lambda triton, **key: triton.unload_model("mock_square", **key),
    "index": lambda triton, **key: triton.get_model_repository_index(**key),
    "memory": lambda triton, **key: triton.register_system_shared_memory("m", "/m", 8, **key),
    "memory status": lambda triton, **key: triton.get_system_shared_memory_status(**key),
    "trace": lambda triton, **key: triton.update_trace_settings(settings={}, **key),
    "logging": lambda triton, **key: triton.update_log_settings({}, **key),
}
CONTROL_HTTP = {
    "load": "repository/models/mock_square/load",
    "unload": "repository/models/mock_square/unload",
    "index": "repository/index",
    "memory": "systemsharedmemory/region/m/register",
    "CUDA memory": "cudasharedmemory/region/m/register",
    "trace": "trace/setting",
    "logging": "logging",
}


@pytest.mark.parametrize("what", CONTROL_GRPC)
def test_control_over_grpc_needs_the_key(triton, server, what):
    with pytest.raises(InferenceServerException, match="protocol is restricted"):
        CONTROL_GRPC[what](triton)
    with pytest.raises(InferenceServerException, match="protocol is restricted"):
        CONTROL_GRPC[what](triton, headers={f"triton-grpc-protocol-{KEY_HEADER}": "guess"})
    assert triton.infer("mock_square", [tensor("x", "FP32", [[2, 3]])]).as_numpy("y").sum() == 13
    key = {f"triton-grpc-protocol-{KEY_HEADER}": server.settings.key}
    assert triton.get_model_repository_index(headers=key).models


@pytest.mark.parametrize("what", CONTROL_HTTP)
def test_control_over_http_needs_the_key(triton, server, what):
    for headers in ({}, {KEY_HEADER: "guess"}):
        url = f"{server.http_url}/v2/{CONTROL_HTTP[what]}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, b"{}", headers, method="POST"))
        assert "API is restricted" in refused.value.read().decode()
    assert triton.is_model_ready("mock_square")


def test_clients_need_no_key(triton):
    assert triton.is_server_ready()
    assert triton.get_server_metadata().name
    assert triton.get_model_metadata("mock").inputs
    assert triton.get_model_config("mock").config.name == "mock"
    assert triton.get_inference_statistics("mock").model_stats


def test_a_taken_port_is_named_before_anything_starts(repository):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(PortTaken, match=rf"http on 127.0.0.1:{port} .*--http-port"),
            serving(repository, http_port=port),
        ):
            pass


def test_a_broken_model_is_named(tmp_path):
    folder = mock_pipeline.build(tmp_path)
    (folder / "mock_lookup" / "1" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(TritonFailed, match="cannot load mock_lookup: ") as raised, serving(folder):
        pass
    assert "\\n" not in str(raised.value)
    assert "mock_lookup" in raised.value.log_tail


@pytest.fixture
def command(repository, tmp_path) -> Iterator[Command]:
    running = Command(repository, tmp_path)
    yield running
    running.close()


class Stream:
    """One request to the mock pipeline; collects its responses as they arrive."""

    def __init__(self, url: str, steps: int) -> None:
        self.answers: queue.Queue = queue.Queue()
        self.client = InferenceServerClient(url)
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))
        inputs = [tensor("prompt", "BYTES", [b"x"]), tensor("steps", "INT32", [steps])]
        self.client.async_stream_infer("mock", inputs, enable_empty_final_response=True)

    def values(self) -> Iterator[int]:
        while True:
            result, error = self.answers.get(timeout=20)
            if error is not None:
                raise error
            response = result.get_response()
            if response.outputs:
                yield int(result.as_numpy("last")[0])
            if response.parameters["triton_final_response"].bool_param:
                self.client.stop_stream()
                return


def test_a_running_request_finishes_before_the_server_stops(command):
    group, prefix = command.triton.pid, command.shm_prefix
    idle = Stream(command.grpc_url, steps=1)
    assert next(idle.values()) == 1  # its stream stays open
    running = Stream(command.grpc_url, steps=30).values()
    first = next(running)
    command.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises(InferenceServerException, match="no available versions"):
        list(Stream(command.grpc_url, steps=1).values())
    assert [first, *running] == [step**2 for step in range(1, 31)]
    assert command.end()[0] == 0
    assert left(group, prefix) == []


def test_a_second_interrupt_stops_at_once(command):
    group, prefix = command.triton.pid, command.shm_prefix
    stream = Stream(command.grpc_url, steps=10_000)
    next(stream.values())
    command.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 0
    assert left(group, prefix) == []
    # The server did not wait for the request.
    with pytest.raises(InferenceServerException):
        list(stream.values())
