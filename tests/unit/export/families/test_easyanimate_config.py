"""Video checkpoints: the settings read from their configs, and the configs refused."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from stepwise.description.manifest import Manifest, Sides
from stepwise.description.vae_caches import Cache
from stepwise.export.checkpoint.safetensors_files import check_sizes
from stepwise.export.checkpoint.tokenizer import chat_templates, token_length
from stepwise.export.errors import CheckpointError
from stepwise.export.families.easyanimate import REFERENCE_NOISE, video_layout
from stepwise.export.loading.loader import load
from stepwise.export.loading.source import open_checkpoint
from stepwise.export.onnx import parity_report
from stepwise.export.onnx.parity_report import Parity
from stepwise.export.preflight.resources import costs
from stepwise.export.preflight.smoke_test import LARGEST_VIDEO_SIDE, rehearse
from stepwise.export.repository.layout import Target, describe
from stepwise.families.easyanimate import EASYANIMATE, EASYANIMATE_I2V
from tests.support.family import key

QWEN = EASYANIMATE.encoders[0]


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of the miniature that tests may damage."""
    return shutil.copytree(checkpoints["easyanimate"], tmp_path / "easyanimate")


@pytest.fixture
def continuing(checkpoints, tmp_path):
    """A copy of the image-to-video miniature that tests may damage."""
    return shutil.copytree(checkpoints["easyanimate_i2v"], tmp_path / "easyanimate_i2v")


def refused(folder, pipeline, *words):
    """Assert that opening ``folder`` fails with one sentence that contains all ``words``."""
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder, pipeline)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_checkpoint_opens_with_its_sides_and_schedule(folder):
    checkpoint = open_checkpoint(folder, EASYANIMATE)
    assert checkpoint.vae_scale == 8
    assert checkpoint.sides == Sides(native=48, minimum=32, maximum=96, multiple=16)
    assert checkpoint.size == (48, 48)
    # The value that EasyAnimatePipeline passes to a scheduler with dynamic shifting.
    assert checkpoint.schedule["mu"] == 1.0
    edit(folder / "scheduler" / "scheduler_config.json", mu=0.5)
    assert open_checkpoint(folder, EASYANIMATE).schedule["mu"] == 0.5


def test_the_native_size_may_be_wide(folder):
    edit(folder / "transformer" / "config.json", sample_height=60, sample_width=90)
    checkpoint = open_checkpoint(folder, EASYANIMATE)
    assert checkpoint.size == (480, 720)
    assert checkpoint.sides == Sides(native=480, minimum=240, maximum=1056, multiple=16)
    edit(folder / "transformer" / "config.json", sample_width=181)
    with pytest.raises(CheckpointError, match="sample_width=181, which is 1448 pixels"):
        _ = open_checkpoint(folder, EASYANIMATE).size


def test_components_have_the_checkpoints_caches(continuing):
    pipeline = open_checkpoint(continuing, EASYANIMATE_I2V).family
    encoder, decoder = pipeline.image_encoder, pipeline.decoder
    assert encoder.inputs[2].dims == (1, 3, 2, "8*height", "8*width")
    assert decoder.inputs[2].dims == (1, 16, 2, "height", "width")
    for component in (encoder, decoder):
        taken, given = component.inputs[2:], component.outputs[1:]
        assert [f"next_{tensor.name}" for tensor in taken] == [tensor.name for tensor in given]
        assert [tensor.dims for tensor in taken] == [tensor.dims for tensor in given]
    # Convolutions that halve the frames cache one previous frame, all others two.
    assert [tensor.dims[2] for tensor in encoder.inputs[2:]].count(1) == 2


def test_the_manifest_has_the_video_layout(continuing, tmp_path):
    checkpoint = open_checkpoint(continuing, EASYANIMATE_I2V)
    manifest = describe(checkpoint, "videos", {"qwen": 256}, chat_templates(checkpoint))
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    video = manifest.video
    assert (video.frames, video.patch, video.head_dim) == (4, 2, 32)
    assert (video.tile, video.tile_stride) == (512, 448)
    assert video.encoder_caches[0] == Cache(channels=3, frames=2, scale=8)
    assert video.decoder_caches[0] == Cache(channels=16, frames=2, scale=1)
    assert video.reference_noise == REFERENCE_NOISE
    assert manifest.size == (48, 48)
    assert manifest.largest_clip_skip == 0


def test_images_get_noise_if_the_transformer_was_trained_with_it(continuing, folder):
    edit(continuing / "transformer" / "config.json", add_noise_in_inpaint_model=False)
    assert video_layout(open_checkpoint(continuing, EASYANIMATE_I2V)).reference_noise == 0.0
    video = video_layout(open_checkpoint(folder, EASYANIMATE))
    assert (video.reference_noise, video.encoder_caches) == (0.0, ())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"in_channels": 33}, "in_channels=33"),
        ({"out_channels": 32}, "out_channels=32"),
        ({"text_embed_dim_t5": 128}, "text_embed_dim_t5=128"),
        ({"time_position_encoding_type": "2d_rope"}, "time_position_encoding_type='2d_rope'"),
        ({"enable_text_attention_mask": False}, "enable_text_attention_mask=False"),
    ],
)
def test_transformers_of_other_models_are_refused(folder, changes, word):
    edit(folder / "transformer" / "config.json", **changes)
    refused(folder, EASYANIMATE, word, "transformer", "V5.1")


def test_checkpoints_that_encode_masks_are_refused(continuing, folder):
    for place in (continuing, folder):
        edit(place / "transformer" / "config.json", resize_inpaint_mask_directly=False)
    refused(continuing, EASYANIMATE_I2V, "resize_inpaint_mask_directly=False")
    # A pipeline without input images has no mask.
    open_checkpoint(folder, EASYANIMATE)


def test_a_checkpoint_of_the_other_pipeline_is_refused(continuing, folder):
    refused(continuing, EASYANIMATE, "EasyAnimateInpaintPipeline", "easyanimate_i2v")
    edit(folder / "model_index.json", _class_name="EasyAnimateInpaintPipeline")
    refused(folder, EASYANIMATE_I2V, "in_channels=16", "in_channels=33")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"spatial_group_norm": False}, "spatial_group_norm=False"),
        (
            {
                "down_block_types": ["SpatialDownBlock3D"] * 4,
                "up_block_types": ["SpatialUpBlock3D"] * 4,
            },
            "4 frames and 8 x 8",
        ),
        ({"block_out_channels": [16, 32]}, "not describe an AutoencoderKLMagvit"),
        ({"norm_num_groups": 7}, "not describe an AutoencoderKLMagvit"),
    ],
)
def test_unsupported_autoencoders_are_refused(folder, changes, word):
    edit(folder / "vae" / "config.json", **changes)
    refused(folder, EASYANIMATE, str(folder / "vae"), word)


def test_a_text_encoder_with_sliding_windows_is_refused(folder):
    path = folder / "text_encoder" / "config.json"
    text = json.loads(path.read_text())["text_config"]
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    edit(path, text_config={**text, **windows, "layer_types": None})
    with pytest.raises(CheckpointError, match="use_sliding_window=True"):
        load(open_checkpoint(folder, EASYANIMATE), QWEN)


def test_sizes_in_nested_configs_are_checked(folder):
    path = folder / "text_encoder" / "config.json"
    shapes = {"weight": (353, 128)}
    check_sizes(path, {f"{n}": shape for n in range(9) for shape in shapes.values()})
    text = json.loads(path.read_text())["text_config"]
    edit(path, text_config={**text, "hidden_size": 10**6})
    with pytest.raises(CheckpointError, match="hidden_size=1000000, far more"):
        check_sizes(path, {f"{n}": shape for n in range(9) for shape in shapes.values()})


def test_only_the_used_part_of_the_text_encoder_is_loaded(folder):
    checkpoint = open_checkpoint(folder, EASYANIMATE)
    names = dict(load(checkpoint, QWEN).named_parameters())
    assert {name.split(".")[1] for name in names} == {"embed_tokens", "layers"}
    assert {name.split(".")[2] for name in names if "layers" in name} == {"0", "1"}


def test_text_encoders_with_old_and_new_names_load_alike(folder, checkpoints):
    """Published checkpoints have names from before transformers 5, without ``language_model``."""
    path = folder / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    assert any(name.startswith("model.layers") for name in weights)
    newer = {
        name.replace("model.", "model.language_model.", 1)
        if name.startswith("model.")
        else f"model.{name}": value
        for name, value in weights.items()
    }
    save_file(newer, path, metadata={"format": "pt"})
    old, new = (
        load(open_checkpoint(place, EASYANIMATE), QWEN).state_dict()
        for place in (checkpoints["easyanimate"], folder)
    )
    assert old.keys() == new.keys()
    assert all((old[name] == new[name]).all() for name in old)


def test_a_text_encoder_that_lacks_a_weight_is_refused(folder):
    path = folder / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    del weights[next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: .*layers\.1\.mlp\.up_proj\.weight"):
        load(open_checkpoint(folder, EASYANIMATE), QWEN)


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{% for m in messages %}{{ m['content'][0]['text'] | trim }}{% endfor %}", "fixed text"),
        ("{% for m in messages %}{{ m['content'][0]['text'] | upper }}{% endfor %}", "fixed text"),
        ("{{ raise_exception('not for users') }}", "not for users"),
        ("{% if %}", "chat template"),
    ],
    ids=["trims", "shouts", "raises", "broken"],
)
def test_chat_templates_that_change_prompts_are_refused(folder, template, word):
    (folder / "tokenizer" / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=word):
        chat_templates(open_checkpoint(folder, EASYANIMATE))


def test_a_tokenizer_without_a_chat_template_is_refused(folder):
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no usable chat template"):
        chat_templates(open_checkpoint(folder, EASYANIMATE))


def test_prompts_are_padded_as_in_diffusers(folder):
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=20)
    assert token_length(open_checkpoint(folder, EASYANIMATE), QWEN) == 256


def test_the_digest_counts_a_shared_folder_once_and_every_file_of_it(continuing):
    before = key(open_checkpoint(continuing, EASYANIMATE_I2V))
    assert key(open_checkpoint(continuing, EASYANIMATE_I2V)) == before
    edit(continuing / "vae" / "config.json", scaling_factor=0.5)
    assert key(open_checkpoint(continuing, EASYANIMATE_I2V)) != before


def test_every_component_has_its_costs(continuing, tmp_path):
    checkpoint = open_checkpoint(continuing, EASYANIMATE_I2V)
    target = Target(checkpoint, tmp_path, "videos", "fp16")
    found = costs(target, checkpoint.family.components)
    assert [cost.component for cost in found] == [c.name for c in EASYANIMATE_I2V.components]
    assert all(0 < cost.stored <= cost.written for cost in found)


def test_one_video_is_rehearsed(continuing):
    checkpoint = open_checkpoint(continuing, EASYANIMATE_I2V)
    feeds = rehearse(checkpoint)
    assert feeds.keys() == {component.name for component in checkpoint.family.components}
    # Five frames are two slices; the second reads the caches of the first.
    for name in ("vae_encoder", "vae_decoder"):
        assert [feed["first"].tolist() for feed in feeds[name]] == [[1], [0]]
        assert [feed["cache_0"].any() for feed in feeds[name]] == [False, True]
    (step,) = feeds["transformer"]
    assert step["latents"].shape == (1, 16, 2, 6, 6)
    assert step["inpaint_latents"].shape == (1, 17, 2, 6, 6)
    assert step["rotary_cos"].shape == (18, 32)


def test_rehearsed_videos_are_small(continuing):
    edit(continuing / "transformer" / "config.json", sample_height=60, sample_width=90)
    feeds = rehearse(open_checkpoint(continuing, EASYANIMATE_I2V))
    side = LARGEST_VIDEO_SIDE
    assert {feed["levels"].shape for feed in feeds["vae_encoder"]} == {(1, 3, 4, side, side)}


def test_weights_that_give_non_finite_values_are_named(continuing):
    path = continuing / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["encoder.conv_in.weight"] *= float("inf")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="vae"):
        rehearse(open_checkpoint(continuing, EASYANIMATE_I2V))


def test_the_table_shows_only_the_cache_with_the_largest_difference():
    rows = [
        Parity("vae_decoder", f"next_cache_{index}", (1,), 0.0, distance, 0.0, 1.0)
        for index, distance in enumerate((0.25, 0.5, 0.125))
    ]
    rows.insert(0, Parity("vae_decoder", "levels", (1,), 0.0, 0.0, 0.0, 1.0))
    lines = parity_report.table(rows).splitlines()
    assert len(lines) == 3
    assert "next_cache_1" in lines[2]
