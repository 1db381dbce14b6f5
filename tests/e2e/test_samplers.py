"""Every sampler that diffusers gets right on SD3 matches its picture, alone and in a batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.commands.latency import PROMPTS
from benchmarks.harness.diffusers_baseline import psnr
from stepwise.client import InvalidRequest
from stepwise.sampling.samplers import SAMPLERS
from tests.support.oracles import oracles

FLOOR_DB = 40.0
SOLO_FLOOR_DB = 50.0
STEPS = 16
# The miniature's own shift. DEIS is left out because diffusers leaves noise in its pictures.
ORACLES = [
    oracle
    for oracle in oracles()
    if oracle.config.get("shift") == 3.0 and oracle.rows_left_out == 0
]
TOGETHER = (
    "euler",
    "heun",
    "euler_ancestral",
    "dpmpp_2m_karras",
    "dpmpp_3m_sde",
    "unipc",
    "deis",
    "lcm",
)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.sampler)
def test_a_served_picture_matches_diffusers(client, diffusers, oracle):
    prompt, seed = PROMPTS[0], 7
    served = client.pictures("sd3", prompt, steps=STEPS, seed=seed, sampler=oracle.sampler)[0]
    reference = diffusers.pictures(
        [prompt],
        [seed],
        STEPS,
        scheduler=oracle.build(STEPS),
        guidance_scale=7.0,
        height=64,
        width=64,
    )[0]
    closeness = psnr(served.image, reference)
    print(f"{oracle.sampler}: PSNR {closeness:.1f} dB, floor {FLOOR_DB} dB")
    assert closeness >= FLOOR_DB


def picture(client, index):
    """A picture with the sampler, step count, seed and prompt of this index."""
    settings = {"steps": 12 + index, "seed": index, "sampler": TOGETHER[index]}
    return client.pictures("sd3", PROMPTS[index], **settings)[0]


def test_eight_samplers_in_one_batch_give_their_solo_pictures(client):
    solo = [picture(client, index) for index in range(len(TOGETHER))]
    with ThreadPoolExecutor(len(TOGETHER)) as threads:
        together = list(threads.map(lambda index: picture(client, index), range(len(TOGETHER))))
    shared = [event.mean_batch for event in together]
    print(f"mean batch {[round(size, 1) for size in shared]}, at least one above 2")
    assert max(shared) > 2
    for sampler, event, alone in zip(TOGETHER, together, solo, strict=True):
        closeness = psnr(event.image, alone.image)
        print(f"{sampler}: PSNR against its solo run {closeness:.1f} dB, floor {SOLO_FLOOR_DB} dB")
        assert closeness >= SOLO_FLOOR_DB


def test_every_sampler_is_served_or_refused_with_a_reason(client):
    for sampler in SAMPLERS:
        if sampler.endswith("_trailing"):
            with pytest.raises(InvalidRequest, match="this checkpoint is a flow"):
                client.pictures("sd3", PROMPTS[0], steps=2, sampler=sampler)
        else:
            event = client.pictures("sd3", PROMPTS[0], steps=2, sampler=sampler)[0]
            assert event.steps == (3 if sampler.startswith("heun") else 2)
            assert event.image.std() > 1
