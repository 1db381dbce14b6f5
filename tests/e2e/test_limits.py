"""Messages to the graphs' own models: sizes that the pipeline sends run, larger ones do not."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient

from stepwise.client import Client
from stepwise.description.manifest import Manifest
from stepwise.description.spec import axis
from stepwise.encoding.prompts import bound
from stepwise.families import FAMILIES
from stepwise.local.steps import decode, denoise
from tests.conftest import TRAINED, further
from tests.support.graph_models import Model, Recorder, ask, ask_together

PROMPT = "a large red star in the top left on a white background " * 30
SPARE_MB = 10.0
MODELS = [(name, part.name) for name, family in TRAINED.items() for part in family.components]
MB = 1e6


def largest_requests(manifest, family):
    """Settings of the largest requests: all sides, rows, frames and tokens at their limits."""
    sides = manifest.buckets or [(manifest.sides.maximum, manifest.sides.maximum)]
    for height, width in sides:
        settings = {"height": height, "width": width, "steps": 1, "guidance_scale": 5.0, "seed": 1}
        if family.makes_videos:
            settings["frames"] = family.limits.frames[1]
        else:
            settings |= {"num_images": family.max_rows // 2}
            settings["clip_skip"] = manifest.largest_clip_skip
        if family.image_encoder:
            image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
            settings |= {"start_image": image, "end_image": image}
        yield settings


@pytest.mark.parametrize("name", TRAINED)
def test_the_limits_are_the_largest_sizes_that_a_pipeline_sends(families, name):
    pipeline = Recorder(families, name)
    for settings in largest_requests(pipeline.manifest, pipeline.family):
        request, decoder = pipeline.request(PROMPT, **settings), pipeline.family.decoder
        # Two videos share the denoiser's calls.
        count = 2 if pipeline.family.makes_videos else 1
        pictures = [picture for _ in range(count) for picture in request.pictures()]
        latents = denoise(pictures, pipeline.predict)[0]
        # The second slice has caches; the others have the same sizes.
        latents = latents[:, :2] if pipeline.family.makes_videos else latents
        decode(decoder, latents, request.settings.video, bound(pipeline.run, decoder))
    for component, model in pipeline.models.items():
        seen = pipeline.sizes[component]
        batched = model.config.max_batch_size
        for sizes in model.largest:
            # Triton itself forms and limits the batches of these models.
            due = {**sizes, "batch": 1} if batched else sizes
            assert not batched or sizes["batch"] == batched
            assert due in seen, (model.name, due)


@pytest.mark.parametrize(
    "name", ["sd3", "sdxl", "easyanimate", further("sdxl_turbo"), further("easyanimate_i2v")]
)
def test_the_largest_requests_are_served(families, families_server, name):
    family, manifest = FAMILIES[name], Manifest.read(families / name)
    client = Client(families_server.grpc_url)

    def result(settings):
        events = list(client.generate(name, PROMPT, **settings, preview_every=1))
        shown = [event for event in events if event.kind == "result"]
        assert any(event.kind == "preview" for event in events)
        return shown

    for settings in largest_requests(manifest, family):
        settings["steps"] = 2
        sides = (settings["height"], settings["width"], 3)
        if family.makes_videos:
            with ThreadPoolExecutor(2) as pool:
                for shown in pool.map(result, [settings, settings]):
                    frames = sum(len(event.frames) for event in shown)
                    assert (frames, *shown[0].frames.shape[1:]) == (settings["frames"], *sides)
        else:
            shown = result(settings)
            assert [event.image.shape for event in shown] == [sides] * settings["num_images"]


@pytest.mark.parametrize(("pipeline", "component"), MODELS)
def test_a_size_beyond_a_limit_is_refused(families, families_server, pipeline, component):
    model = Model(families, pipeline, component)
    for name in model.largest[0]:
        most = model.most(name)
        owner, dim = next((t, d) for t, dims in model.dims.items() for d in dims if on(d, name))
        times, _ = axis(dim)
        allowed = f"allowed are {f'multiples of {times} from ' * (times > 1)}{times} to "
        allowed = f"{allowed}{times * most}" if most > 1 else "allowed is 1"
        for size in (most + 1, 0):
            feed = model.feed(**{name: size})
            message = ask(families_server, model.name, feed)
            if name == "batch" and model.config.max_batch_size:
                # Triton's own checks come first where it forms the batches.
                says = "batch-size must be <=" if size else "input byte size mismatch"
                assert says in message
                continue
            shape = list(feed[owner].shape)
            assert message == (
                f"{model.name}: {owner}: got {shape}, where {dim} is {times * size}; {allowed}"
            )


def on(dim, name):
    """Whether a dim is a multiple of an axis."""
    return isinstance(dim, str) and axis(dim)[1] == name


def test_sides_of_different_buckets_are_refused_together(families, families_server):
    model = Model(families, "sdxl", "unet")
    sides = {name: model.most(name) for name in ("height", "width")}
    message = ask(families_server, model.name, model.feed(**sides))
    assert message.startswith(
        "sdxl_unet: got batch 1, height 24, width 24, text 1; allowed are at most batch 16, "
        "height 18, text 20, width 14 or batch 16, height 16, text 20, width 16 or "
    )


def test_inputs_that_do_not_fit_together_are_refused(families, families_server):
    model = Model(families, "sd3", "transformer")
    feed = {**model.feed(batch=2), "timestep": np.zeros(3, np.float32)}
    assert ask(families_server, model.name, feed) == (
        "sd3_transformer: timestep: got [3], where batch is 3, but 2 by other inputs"
    )


def stub(server, model):
    """The process of a model."""
    for process in psutil.Process(server.process.pid).children(recursive=True):
        if any(f"/{model}/1/" in word for word in process.cmdline()):
            return process
    raise AssertionError(f"no process of {model}")


def peak(process):
    """The most memory of a process since ``reset_peak``, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000


def reset_peak(process):
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@pytest.mark.parametrize(
    ("component", "sizes"),
    [
        ("transformer", {"batch": 4096, "height": 2, "width": 2}),
        ("t5", {"tokens": 100_000}),
    ],
)
def test_memory_does_not_grow_with_a_large_message(families, families_server, component, sizes):
    model = Model(families, "sd3", component)
    process, feed = stub(families_server, model.name), model.feed(**sizes)
    reset_peak(process)
    before = peak(process)
    (name, size), *_ = sizes.items()
    assert f"where {name} is {size}" in ask(families_server, model.name, feed)
    grown, sent = peak(process) - before, sum(value.nbytes for value in feed.values()) / MB
    # The process holds the message in shared memory and in a copy.
    ceiling = 2 * sent + SPARE_MB
    print(f"{sent:.1f} MB sent, {model.name} grew by {grown:.1f} MB, ceiling {ceiling:.1f}")
    assert grown < ceiling


def ids(model, value):
    return {**model.feed(tokens=model.most("tokens")), "ids": np.full((1, 20), value, np.int64)}


def skipping(model, layers):
    return {**ids(model, 5), "clip_skip": np.full((1, 1), layers, np.int64)}


@pytest.mark.parametrize(
    "bad",
    [
        lambda model: ids(model, 10**9),
        lambda model: ids(model, -(10**9)),
        lambda model: skipping(model, 10**9),
    ],
    ids=["huge ids", "negative ids", "huge clip_skip"],
)
def test_a_bad_message_in_a_batch_fails_alone(families, families_server, bad):
    model = Model(families, "sd3", "clip_l")
    feeds = [ids(model, number) for number in range(1, 8)]
    alone = [ask(families_server, model.name, feed) for feed in feeds]
    before = executions(families_server, model.name)
    for place in range(8):
        *others, message = joined(families_server, model.name, feeds, bad(model), place)
        for answer, due in zip(others, alone, strict=True):
            np.testing.assert_allclose(answer["hidden_states"], due["hidden_states"], atol=1e-4)
        assert message.startswith("sd3_clip_l cannot run on ids [1, 20], clip_skip [1, 1]: ")
        assert "Traceback" not in message
    ran = executions(families_server, model.name) - before
    print(f"{ran} executions of 96 messages")
    assert ran < 96


def test_values_that_are_not_finite_do_not_reach_the_rest_of_a_batch(families, families_server):
    model, noise = Model(families, "sd3", "vae_decoder"), np.random.default_rng(1)
    feeds = [{"latents": noise.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(7)]
    alone = [ask(families_server, model.name, feed)["image"] for feed in feeds]
    broken = {"latents": np.full((1, 16, 8, 8), np.nan, np.float32)}
    for place in range(8):
        *others, last = joined(families_server, model.name, feeds, broken, place)
        assert last["image"].shape == (1, 64, 64, 3)
        for answer, due in zip(others, alone, strict=True):
            assert np.abs(answer["image"].astype(int) - due).max() <= 1


def joined(server, model, feeds, bad, place):
    """The answers to ``feeds`` and then to ``bad``, which is sent as number ``place`` of all."""
    order = [*feeds[:place], bad, *feeds[place:]]
    # While the model runs whole batches, the others wait and join.
    busy = [{name: np.repeat(value, 4, axis=0) for name, value in feeds[0].items()}] * 4
    answers = ask_together(server, model, [*busy, *order])[len(busy) :]
    return [*answers[:place], *answers[place + 1 :], answers[place]]


def executions(server, model):
    with InferenceServerClient(server.grpc_url) as triton:
        return triton.get_inference_statistics(model).model_stats[0].execution_count


@pytest.mark.parametrize("lacks", ["ids", "clip_skip"])
def test_a_message_without_an_input_is_refused(families, families_server, lacks):
    model = Model(families, "sd3", "clip_l")
    feed = model.feed()
    del feed[lacks]
    message = ask(families_server, model.name, feed)
    assert f"missing required input(s) ['{lacks}']" in message
