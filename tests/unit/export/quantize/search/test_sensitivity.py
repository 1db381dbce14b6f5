"""Sensitivity scores of single layers of the miniature, and resuming a run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stepwise.export.quantize.calibration.activation_ranges import Clipping, activations
from stepwise.export.quantize.calibration.bos_token import first_token
from stepwise.export.quantize.calibration.calibrate import calibrate
from stepwise.export.quantize.layers import Group
from stepwise.export.quantize.search.runtimes import RUNTIMES
from stepwise.export.quantize.search.sensitivity import Trial, loss, measure, trials

RUNTIME = RUNTIMES["onnxruntime"]
NAMES = ("conv_in", "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2")


@pytest.fixture(scope="module")
def few(study):
    return replace(study, requests=study.requests[:2])


@pytest.fixture(scope="module")
def measured(few, tmp_path_factory):
    """A function from a path to the scores of two layers, one of each group."""
    layers = [layer for layer in few.layers if layer.name in NAMES]
    recording = calibrate(few, few.layers, tmp_path_factory.mktemp("calibration"))
    ranges = {
        clipping: activations(recording, layers, dict.fromkeys(NAMES, clipping))
        for clipping in Clipping
    }
    first = first_token(few.unet, few.layers, few.texts)
    return lambda path: measure(few, layers, ranges, first, RUNTIME, path)


@pytest.fixture(scope="module")
def path(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.jsonl"
    measured(path)
    return path


def test_trials_cover_everything_that_the_runtime_supports(study):
    by_layer = {}
    for trial in trials(study.layers, RUNTIME):
        by_layer.setdefault(trial.layer, []).append(trial)
    for layer in study.layers:
        weights = [trial.bits for trial in by_layer[layer.name] if trial.clipping is None]
        assert weights == ([4, 8] if layer.is_linear else [8])
        clippings = [trial.clipping for trial in by_layer[layer.name] if trial.clipping]
        assert clippings == list(Clipping)


def test_each_group_has_its_own_metric(measured, path):
    scores = measured(path)
    content = {trial: score for trial, score in scores.items() if trial.group is Group.CONTENT}
    quality = {trial: score for trial, score in scores.items() if trial.group is Group.QUALITY}
    print(content, quality)
    assert {trial.layer for trial in content} == {NAMES[1]}
    assert all(0.9 < score <= 1 for score in content.values())
    assert {trial.layer for trial in quality} == {NAMES[0]}
    assert all(20 < score < 100 for score in quality.values())


def test_fewer_bits_cost_more(measured, path):
    scores = measured(path)
    four, eight = (Trial(NAMES[1], Group.CONTENT, bits) for bits in (4, 8))
    print(f"similarity {scores[four]} with 4 bits, {scores[eight]} with 8")
    assert loss(Group.CONTENT, scores[four]) > loss(Group.CONTENT, scores[eight])


def test_losses_are_relative():
    assert loss(Group.CONTENT, 0.75) == 0.25
    assert loss(Group.QUALITY, 20.0) == pytest.approx(0.01)


def test_a_stopped_run_resumes(few, measured, path, tmp_path):
    """Simulates a kill during the write of the third score; the first two are reused."""
    whole = path.read_text()
    first, second, third = whole.splitlines(keepends=True)[:3]
    marked = {**json.loads(first), "score": 0.123}
    stopped = tmp_path / "scores.jsonl"
    stopped.write_text(json.dumps(marked) + "\n" + second + third[:20])
    scores, expected = measured(stopped), measured(path)
    assert scores.keys() == expected.keys()
    kept, *others = expected
    assert scores[kept] == 0.123
    assert [scores[trial] for trial in others] == [expected[trial] for trial in others]
    assert len(stopped.read_text().splitlines()) == len(expected)


def test_measuring_does_not_change_the_model(few, measured, path, tmp_path):
    before = few.pictures()
    measured(tmp_path / "again.jsonl")
    assert np.array_equal(few.pictures(), before)
