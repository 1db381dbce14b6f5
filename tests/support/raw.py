"""Streams of raw request tensors that bypass our client."""

import queue

import numpy as np
from tritonclient import grpc
from tritonclient.utils import np_to_triton_dtype

SECONDS = 60


def tensors(**values):
    """Request tensors: arrays keep their shape, numbers and text become one element."""
    built = []
    for name, value in values.items():
        array = value if isinstance(value, np.ndarray) else one(value)
        tensor = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        built.append(tensor)
    return built


def one(value):
    if isinstance(value, str):
        return np.asarray([value.encode()], np.object_)
    return np.asarray([value], np.float32 if isinstance(value, float) else np.int32)


class Stream:
    """One stream to a server; responses keep their order of arrival."""

    def __init__(self, server, headers=None):
        self._headers = headers
        self._answers = queue.Queue()
        self._server = grpc.InferenceServerClient(server.grpc_url)

    def __enter__(self):
        self._server.start_stream(
            lambda result, error: self._answers.put((result, error)), headers=self._headers
        )
        return self

    def __exit__(self, *_):
        self._server.stop_stream(cancel_requests=True)
        self._server.close()

    def send(self, model, request_id="", parameters=None, **values):
        self._server.async_stream_infer(
            model,
            tensors(**values),
            request_id=request_id,
            enable_empty_final_response=True,
            parameters=parameters,
        )

    def next(self):
        """The next response or error: (response, None) or (None, message)."""
        result, error = self._answers.get(timeout=SECONDS)
        return (None, error.message()) if error else (result, None)

    def last(self):
        """Wait for the end of a request; return the error message, or None on success."""
        while True:
            result, message = self.next()
            if message is not None:
                return message
            if result.get_response().parameters["triton_final_response"].bool_param:
                return None
