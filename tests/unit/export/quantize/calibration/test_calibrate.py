"""Recordings of the miniature's activations, and resuming a calibration."""

import numpy as np
import pytest
import torch

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.calibration.calibrate import calibrate
from stepwise.export.quantize.calibration.observers import Part, Place, recording
from stepwise.export.quantize.layers import find
from tests.unit.export.quantize.conftest import feed, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def recorded(study, folder):
    return calibrate(study, study.layers, folder)


def test_every_layer_is_counted_at_every_step(study, recorded):
    steps = {place.timestep for place in recorded}
    assert steps == {499.0, 999.0}
    for layer in study.layers:
        parts = {Part.INPUT, Part.OUTPUT}
        parts |= {Part.SKIP} if layer.split else set()
        parts |= {Part.FIRST_INPUT, Part.FIRST_OUTPUT} if layer.begins_alike else set()
        found = {place for place in recorded if place.layer == layer.name}
        assert found == {Place(layer.name, part, step) for part in parts for step in steps}


def test_counts_cover_all_pictures(study, recorded):
    side, pictures = study.requests[0].settings.latent_shape[-1], len(study.requests)
    got = recorded[Place("conv_in", Part.INPUT, 999.0)]
    assert got.counts.sum() == pictures * 4 * side * side
    tokens, width = study.texts.shape[1:]
    name = next(layer.name for layer in study.layers if layer.begins_alike)
    assert recorded[Place(name, Part.INPUT, 999.0)].counts.sum() == pictures * (tokens - 1) * width
    assert recorded[Place(name, Part.FIRST_INPUT, 999.0)].counts.sum() == pictures * width


def test_a_split_input_is_counted_by_its_source(sd15):
    layer = next(layer for layer in find(sd15) if layer.split)
    kept = []
    hook = sd15.get_submodule(layer.name).register_forward_hook(lambda _, g, __: kept.append(g[0]))
    with recording(sd15, [layer]) as recorder:
        run(sd15, *feed())
    hook.remove()
    block, skip = kept[0][:, : layer.split], kept[0][:, layer.split :]
    for part, values in ((Part.INPUT, block), (Part.SKIP, skip)):
        found = recorder.found[Place(layer.name, part, 0.0)]
        assert (found.low, found.high) == (float(values.min()), float(values.max()))


def test_a_stopped_run_resumes(study, folder, recorded, tmp_path, capsys):
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["0000.npz", "0001.npz"]
    (tmp_path / "0000.npz").write_bytes(files[0].read_bytes())
    (tmp_path / "0001.partial").write_bytes(b"stopped here")
    before = (tmp_path / "0000.npz").stat().st_mtime_ns
    found = calibrate(study, study.layers, tmp_path)
    assert (tmp_path / "0000.npz").stat().st_mtime_ns == before
    assert found.keys() == recorded.keys()
    for place, histogram in found.items():
        assert (histogram.counts == recorded[place].counts).all()
    assert "calibrating" in capsys.readouterr().err


def test_a_damaged_recording_is_named(study, folder, recorded, tmp_path):
    whole = (folder / "0000.npz").read_bytes()
    (tmp_path / "0000.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(QuantizationError, match="0000.npz is not a complete .*; delete it"):
        calibrate(study, study.layers, tmp_path)


def test_a_model_with_infinite_activations_is_refused(sd15):
    with torch.no_grad():
        sd15.conv_in.weight.fill_(np.inf)
    with (
        pytest.raises(QuantizationError, match="not finite"),
        recording(sd15, find(sd15)),
    ):
        run(sd15, *feed())
