"""Small runs of each long benchmark; tests check the counts, not the timings."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.commands import (
    batch_caps,
    cancels,
    colocated,
    latency,
    load,
    perf_analyzer,
    quality,
    soak,
    video_decoder,
)
from miniatures import prompts
from tests.conftest import further

FLOOR_DB = 40.0
SMALL = load.Plan(lanes=4, rounds=1, requests=12, blocks=1, arrivals=3, joins=1, calls=1)


def test_all_load_is_served_and_only_the_in_flight_server_batches(families_server, tmp_path):
    figures = load.measure(families_server, "sd3", tmp_path / "load.png", SMALL)
    for workload in ("steps", "mixed"):
        closed = figures["closed_loop"][workload]
        assert closed["requests"] == {"in_flight": SMALL.requests, "cap_1": SMALL.requests}
        assert closed["errors"] == {"in_flight": {}, "cap_1": {}}
        print(f"mean batch {closed['mean_batch']}: above 1.5 in flight, 1 with the cap")
        assert closed["mean_batch"]["in_flight"] > (1.5 if workload == "steps" else 1)
        assert closed["mean_batch"]["cap_1"] == 1
        assert closed["gain_of_bare_graph"] > 0
    opened = figures["open_loop"]
    for way in ("in_flight", "cap_1"):
        assert opened[way]["requests"] == SMALL.arrivals
        assert opened[way]["errors"] == {}
    assert opened["cap_1"]["mean_batch"] == 1
    assert figures["joining"]["tick_ms"] > 0
    assert (tmp_path / "load.png").stat().st_size > 10_000


def test_two_concurrent_pipelines_both_serve(families_server):
    figures = colocated.measure(
        families_server, "sd3", colocated.Plan(lanes=2, rounds=1, seconds=2)
    )
    for way in ("alone", "together"):
        for name in ("sd3", "sdxl_turbo"):
            found = figures[way][name]
            print(f"{name} {way}: {found['requests']} requests, {found['pictures_per_second']}/s")
            assert found["errors"] == {}
            assert found["requests"] >= 2
            assert found["pictures_per_second"] > 0
    assert figures["failures"] == colocated.starved(figures["share_kept"])


@pytest.mark.parametrize(
    ("family", "steps"), [("sd3", {"20"}), further("sdxl", {"20"}), ("sdxl_turbo", {"4", "1"})]
)
def test_quality_compares_served_pictures_with_diffusers(
    families_server, checkpoints, family, steps
):
    few = prompts.load()[198:202]
    found = quality.measure(families_server, checkpoints[family], family, few)
    assert set(found["by_steps"]) == steps
    for count, figures in found["by_steps"].items():
        worst = figures["psnr_to_diffusers_worst"]
        print(f"{family}, {count} steps: {worst} dB at worst, floor {FLOOR_DB} dB")
        assert worst == "identical" or worst >= FLOOR_DB
        assert set(figures["served"]) == set(figures["diffusers"]) == {"seen", "held_out"}


@pytest.mark.parametrize(("family", "steps"), [("sdxl_turbo", {"4", "1"}), further("sdxl", {"20"})])
def test_latency_is_measured_at_the_steps_of_the_family(
    families_server, checkpoints, family, steps
):
    found = latency.measure(families_server, checkpoints[family], family, rounds=1, steps_a_round=1)
    assert set(found["by_steps"]) == steps
    for count, figures in found["by_steps"].items():
        rates = figures["pictures_per_second"]
        print(f"{family}, {count} steps: {rates}")
        assert set(rates) == {
            *("served_1", "in_process_1", "diffusers_1"),
            *("served_8", "diffusers_8_serial", "diffusers_8_batch"),
        }
        assert all(rate > 0 for rate in rates.values())


def test_suggested_caps_are_written_where_the_server_reads_them(repository, tmp_path):
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    figures = batch_caps.measure(copy, "sd3", write=True, calls=1)
    written = copy / "sd3" / "caps.json"
    assert json.loads(written.read_text()) == {k: v["cap"] for k, v in figures.items()}
    assert set(figures) == {"64x64", "32x32", "96x96", "64x96"}


def test_perf_analyzer_measures_the_same_server(families_server):
    figures = perf_analyzer.measure(families_server, "sd3", rounds=1, requests=16)
    print(f"ours over perf_analyzer's {figures['ours_over_perf_analyzer']}")
    assert figures["requests_per_second_perf_analyzer"][0] > 0
    assert figures["requests_per_second_ours"][0] > 0


def test_every_request_of_a_short_soak_gets_one_final_response(families_server):
    figures = soak.measure(families_server, "sd3", seconds=5)
    answered = figures["by_fate"]["answered"]["OK"]
    print(f"{figures['requests']} requests, {answered} pictures, failures {figures['failures']}")
    assert figures["requests"] == figures["distinct_ids"] >= soak.LANES
    wrong = [f for f in figures["failures"] if not f.startswith(("resident", "shared", "threads"))]
    assert wrong == []


def test_cancelled_requests_leave_nothing_behind(families_server):
    figures = cancels.measure(families_server, "sd3", count=40)
    print(f"before {figures['before']}, after {figures['after']}")
    assert figures["failures"] == []
    assert sum(figures["answers"].values()) == 40


@pytest.mark.parametrize("way", video_decoder.WAYS)
def test_a_video_is_decoded_in_a_process_of_its_own(families, way):
    figures = video_decoder.apart(families, "easyanimate", way, frames=5)
    print(figures)
    assert figures["peak_mb"] > 50
    assert 0 < figures["seconds_to_first"] <= figures["seconds_to_last"]
