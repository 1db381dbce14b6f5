"""Bad input gets an error that names the field; other requests are not affected."""

import threading

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from stepwise.client import Client, InvalidRequest, ServerUnavailable

PROMPT = "a large red star in the top left on a white background"


def send(server, pipeline="sd3", **tensors):
    """Send raw tensors without our client; return the error message, or None on success."""
    messages = []
    done = threading.Event()

    def answer(result, error):
        if error is not None:
            messages.append(error.message())
        if (
            error is not None
            or result.get_response().parameters["triton_final_response"].bool_param
        ):
            done.set()

    inputs = []
    for name, value in tensors.items():
        tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    with grpc.InferenceServerClient(server.grpc_url) as raw:
        raw.start_stream(answer)
        try:
            raw.async_stream_infer(pipeline, inputs, enable_empty_final_response=True)
            assert done.wait(60), "no response within a minute"
        except InferenceServerException as error:
            messages.append(error.message())
    return messages[0] if messages else None


def words(value, shape=(1,)):
    return np.full(shape, value, np.object_)


PROMPT_TENSOR = {"prompt": words(PROMPT.encode()), "steps": np.asarray([2], np.int32)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"prompt": words(b"")}, "prompt: got ''"),
        ({"prompt": words(b" \n ")}, "prompt: got"),
        ({"prompt": words(b"ab\xff\xfe")}, "prompt: got bytes that are not UTF-8"),
        ({"prompt": words(b"a" * (2 << 20))}, "prompt: got 2097152 bytes; at most 1048576"),
        ({"negative_prompt": words(b"\x80")}, "negative_prompt: got bytes that are not UTF-8"),
        ({"steps": np.asarray([0], np.int32)}, "steps: got 0; allowed are 1 to 100"),
        ({"steps": np.asarray([-3], np.int32)}, "steps: got -3; allowed are 1 to 100"),
        ({"steps": np.asarray([2**31 - 1], np.int32)}, "steps: got 2147483647; allowed"),
        ({"guidance_scale": np.asarray([np.nan], np.float32)}, "guidance_scale: got nan; allowed"),
        ({"guidance_scale": np.asarray([1e9], np.float32)}, "guidance_scale: got 1e+09; allowed"),
        ({"height": np.asarray([60], np.int32)}, "height: got 60; allowed are multiples of 16"),
        ({"width": np.asarray([4096], np.int32)}, "width: got 4096; allowed are multiples of 16"),
        ({"sampler": words(b"ddpm")}, "sampler: got 'ddpm'; allowed are euler"),
        ({"num_images": np.asarray([1000], np.int32)}, "num_images: got 1000; allowed are 1 to 16"),
        ({"steps": np.asarray([2.0], np.float32)}, "steps"),
        ({"steps": np.asarray([2, 3], np.int32)}, "steps"),
        ({"prompt": words(PROMPT.encode(), (2,))}, "prompt"),
        ({"prompt": np.asarray([7], np.int32)}, "prompt"),
        ({"colour": words(b"red")}, "colour"),
    ],
)
def test_an_error_names_the_bad_tensor_and_the_server_continues(server, tensors, says):
    message = send(server, **{**PROMPT_TENSOR, **tensors})
    assert message is not None
    assert says in message
    assert send(server, **PROMPT_TENSOR) is None


def test_a_request_without_a_prompt_is_refused(server):
    for tensors in ({}, {"steps": np.asarray([2], np.int32)}):
        assert "prompt: got none; say what the picture should show" in send(server, **tensors)


def test_a_prompt_of_100_kilobytes_is_cut_with_a_note(client):
    result = client.pictures("sd3", (PROMPT + ", ") * 1800, steps=2, seed=1)[0]
    assert result.image.shape == (64, 64, 3)
    assert any(note.startswith("prompt: cut to the first tokens") for note in result.notes)
    assert not client.pictures("sd3", PROMPT, steps=2, seed=1)[0].notes


def test_the_client_names_a_setting_that_the_pipeline_lacks(client):
    with pytest.raises(InvalidRequest, match="colour: sd3 has no such setting; it has prompt"):
        client.pictures("sd3", PROMPT, colour="red")
    with pytest.raises(InvalidRequest, match="steps: got 'many'; a number of type INT32"):
        client.pictures("sd3", PROMPT, steps="many")


def test_the_client_raises_the_error_of_the_server(client):
    with pytest.raises(InvalidRequest, match="steps: got 0; allowed are 1 to 100"):
        client.pictures("sd3", PROMPT, steps=0)


def test_an_error_names_a_missing_pipeline_or_server(client):
    with pytest.raises(InvalidRequest, match="got 'sdxl'; served are sd3"):
        client.pictures("sdxl", PROMPT)
    with pytest.raises(ServerUnavailable, match="127.0.0.1:9: .* is the server running"):
        Client("127.0.0.1:9").pictures("sd3", PROMPT)


def test_a_thousand_errors_leave_the_server_alive(server, client):
    for _ in range(1000):
        with pytest.raises(InvalidRequest):
            client.pictures("sd3", PROMPT, steps=0)
    assert server.process.poll() is None
    assert client.pictures("sd3", PROMPT, steps=1)[0].image.shape == (64, 64, 3)


def test_clients_that_disconnect_do_not_affect_others(client):
    control = client.pictures("sd3", PROMPT, steps=10, seed=5)[0].image
    for _ in range(5):
        events = client.generate("sd3", PROMPT, steps=40, seed=6)
        assert next(events).kind == "progress"
        events.close()
    again = client.pictures("sd3", PROMPT, steps=10, seed=5)[0].image
    difference = np.abs(control.astype(int) - again).max()
    print(f"largest difference {difference} of 255, ceiling 1")
    assert difference <= 1
