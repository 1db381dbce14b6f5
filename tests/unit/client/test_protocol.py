import json

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import deserialize_bytes_tensor

from stepwise.client.errors import InvalidRequest
from stepwise.client.protocol import About, Request, about, input_types


@pytest.fixture
def config():
    types = {"prompt": "TYPE_STRING", "steps": "TYPE_INT32", "guidance_scale": "TYPE_FP32"}
    made = model_config_pb2.ModelConfig()
    for name, kind in types.items():
        made.input.add(name=name, data_type=model_config_pb2.DataType.Value(kind), dims=[1])
    made.parameters["request"].string_value = json.dumps(
        {"defaults": {"steps": 28}, "ranges": {"steps": [1, 100]}, "samplers": ["euler"]}
    )
    made.parameters["pipeline"].string_value = "sd3"
    return made


def test_a_config_has_types_defaults_ranges_samplers_and_family(config):
    assert input_types(config) == {"prompt": "BYTES", "steps": "INT32", "guidance_scale": "FP32"}
    assert about(config) == About(
        defaults={"steps": 28},
        ranges={"steps": [1, 100]},
        samplers=("euler",),
        settings=("prompt", "steps", "guidance_scale"),
        family="sd3",
    )


def test_settings_become_tensors_of_the_types_in_the_config(config):
    settings = {"prompt": "é", "steps": "20", "guidance_scale": 1}
    message = Request("sd3", settings, id="a").message(config)
    assert (message.model_name, message.id) == ("sd3", "a")
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("prompt", "BYTES", [1]),
        ("steps", "INT32", [1]),
        ("guidance_scale", "FP32", [1]),
    ]
    prompt, steps, scale = message.raw_input_contents
    assert deserialize_bytes_tensor(prompt)[0].decode() == "é"
    assert np.frombuffer(steps, np.int32).tolist() == [20]
    assert np.frombuffer(scale, np.float32).tolist() == [1.0]


@pytest.mark.parametrize("crop", [(8, 0), [8, 0], "8,0"])
def test_a_setting_of_two_numbers_has_three_spellings(config, crop):
    config.input.add(name="crop", data_type=model_config_pb2.DataType.Value("TYPE_INT32"), dims=[2])
    message = Request("sdxl", {"crop": crop}).message(config)
    assert list(message.inputs[0].shape) == [2]
    assert np.frombuffer(message.raw_input_contents[0], np.int32).tolist() == [8, 0]
    for wrong in (8, (8,), "8,0,1", "8,left"):
        with pytest.raises(InvalidRequest, match=r"crop: got .*; 2 numbers separated by a comma"):
            Request("sdxl", {"crop": wrong}).message(config)


@pytest.mark.parametrize(("value", "sent"), [(True, 1), (False, 0), ("true", 1), ("False", 0)])
def test_a_setting_that_is_true_or_false_has_two_spellings(config, value, sent):
    kind = model_config_pb2.DataType.Value("TYPE_BOOL")
    config.input.add(name="progress", data_type=kind, dims=[1])
    message = Request("sd3", {"progress": value}).message(config)
    assert message.inputs[0].datatype == "BOOL"
    assert message.raw_input_contents[0] == bytes([sent])
    for wrong in (2, "yes", "", 0.5):
        with pytest.raises(InvalidRequest, match="progress: got .*; true or false is needed"):
            Request("sd3", {"progress": wrong}).message(config)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"colour": "red"}, "colour: sd3 has no such setting; it has prompt, steps, guidance_"),
        ({"steps": "many"}, "steps: got 'many'; a number of type INT32 is needed"),
        ({"steps": 2**40}, "steps: got 1099511627776; a number of type INT32"),
    ],
)
def test_an_invalid_setting_is_refused_before_sending(config, settings, says):
    with pytest.raises(InvalidRequest, match=says):
        Request("sd3", settings).message(config)


def test_each_request_has_an_id_that_cancels_it():
    first, second = Request("sd3", {}), Request("sd3", {})
    assert first.id != second.id
    message = first.cancelling()
    assert message.model_name == "sd3"
    assert [tensor.name for tensor in message.inputs] == ["cancel"]
    assert deserialize_bytes_tensor(message.raw_input_contents[0])[0].decode() == first.id


@pytest.fixture
def videos(config):
    """A config of a pipeline that makes videos from a start image."""
    kind = model_config_pb2.DataType.Value("TYPE_UINT8")
    config.input.add(name="start_image", data_type=kind, dims=[-1, -1, 3])
    config.output.add(name="video", data_type=kind, dims=[-1, -1, -1, 3])
    return config


def test_an_input_image_is_sent_unchanged(videos):
    assert about(videos).images == ("start_image",)
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for value in (picture, np.asfortranarray(picture), picture[:, ::-1]):
        message = Request("easyanimate_i2v", {"start_image": value}).message(videos)
        assert (message.inputs[0].datatype, list(message.inputs[0].shape)) == ("UINT8", [5, 7, 3])
        sent = np.frombuffer(message.raw_input_contents[0], np.uint8).reshape(5, 7, 3)
        assert np.array_equal(sent, value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.zeros((5, 7, 3), np.float32), r"an array of float32 \(5, 7, 3\)"),
        (np.zeros((5, 7), np.uint8), r"an array of uint8 \(5, 7\)"),
        (np.zeros((5, 7, 4), np.uint8), r"an array of uint8 \(5, 7, 4\)"),
        (np.zeros((0, 7, 3), np.uint8), r"an array of uint8 \(0, 7, 3\)"),
        ("start.png", "'start.png'"),
        (7, "7"),
    ],
)
def test_a_value_that_is_no_picture_is_refused(videos, value, got):
    says = rf"start_image: got {got}; a picture is needed, as an array of uint8 \(height, width, 3"
    with pytest.raises(InvalidRequest, match=says):
        Request("easyanimate_i2v", {"start_image": value}).message(videos)


def test_a_picture_is_refused_as_a_number(config):
    with pytest.raises(InvalidRequest, match="steps: got .*; a number of type INT32 is needed"):
        Request("sd3", {"steps": np.zeros((5, 7, 3), np.uint8)}).message(config)


def test_a_request_for_the_wrong_kind_of_output_is_refused(videos):
    assert Request("easyanimate_i2v", {}, "video").message(videos).model_name == "easyanimate_i2v"
    with pytest.raises(InvalidRequest, match=r"easyanimate_i2v makes videos, no pictures; .*video"):
        Request("easyanimate_i2v", {}, "image").message(videos)
