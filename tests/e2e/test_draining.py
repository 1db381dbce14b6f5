"""A server that stops: it loses no response, and waits for no request that Triton refused."""

import threading
import time
from contextlib import suppress

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc
from tritonclient.grpc._utils import _get_inference_request

from stepwise.client import Client
from stepwise.server.process import serving
from tests.support import raw

PROMPT = "a large red star in the top left on a white background"
SIDE, FRAMES = 96, 145
FINAL = "triton_enable_empty_final_response"


def test_a_request_that_triton_refused_delays_no_stop(families, caplog):
    """It holds its model forever, so that the model is never unloaded."""
    with serving(families, names=["sd3"]) as server:
        with raw.Stream(server) as stream:
            stream.send("sd3", prompt=PROMPT, steps=np.ones(1, np.float32))
            assert "data-type is 'FP32'" in stream.last()
        events = Client(server.grpc_url).generate("sd3", PROMPT, steps=40)
        assert next(events).step < 40
    assert [event.kind for event in events][-1] == "result"
    assert "still running" not in caplog.text


def test_a_client_that_reads_slowly_gets_its_whole_video(families):
    """Slower than its server would stop: most of the video waits in Triton when it is decoded."""
    asked = {"prompt": PROMPT, "steps": 1, "height": SIDE, "width": SIDE, "frames": FRAMES}
    request = _get_inference_request(
        "easyanimate", raw.tensors(**asked), "", "", None, 0, False, False, 0, None, None
    )
    request.parameters[FINAL].bool_param = True
    received, sent = [], threading.Event()

    def requests():
        yield request
        sent.wait()

    def read(responses):
        with suppress(grpc.RpcError):  # the connection ends with the server
            for response in responses:
                received.append(sum(map(len, response.infer_response.raw_output_contents)))
                time.sleep(0.2)

    options = [("grpc.http2.lookahead_bytes", 1 << 14), ("grpc.http2.bdp_probe", 0)]
    with serving(families, names=["easyanimate"]) as server:
        channel = grpc.insecure_channel(server.grpc_url, options)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        responses = stub.ModelStreamInfer(requests())
        reading = threading.Thread(target=read, args=(responses,))
        reading.start()
        while not received:
            time.sleep(0.01)
    sent.set()
    reading.join()
    size = FRAMES * SIDE * SIDE * 3
    print(f"{sum(received)} bytes in {len(received)} responses; the frames have {size}")
    assert sum(received) >= size
