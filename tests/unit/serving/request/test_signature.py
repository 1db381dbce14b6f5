"""Messages between models: only the sender's own are accepted, for one purpose and one request."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from stepwise.description.errors import InvalidRequest
from stepwise.request import shared_state
from stepwise.request.ids import SHORTEST, can_be_guessed, private
from stepwise.request.shared_state import STAGES, Occupancy, folder, key, working
from stepwise.request.signature import Signer, shapes, values

KEY = bytes(range(32))
SIGNER = Signer(KEY, "sd3")
IDS = {"t5_ids": np.arange(4, dtype=np.int64)[None]}
NAMES = tuple(IDS)


def signed(message="{}", tensors=b""):
    return SIGNER.sign("prepared", "id", message, tensors)[0]


def test_a_signed_message_survives():
    assert SIGNER.check("prepared", "id", signed('{"steps": 7}')) == b'{"steps": 7}'
    assert SIGNER.check("prepared", "id", signed("")) == b""


@pytest.mark.parametrize(
    ("signer", "purpose", "request_id"),
    [
        (Signer(KEY[::-1], "sd3"), "prepared", "id"),
        (Signer(KEY, "sdxl"), "prepared", "id"),
        (SIGNER, "encoded", "id"),
        (SIGNER, "prepared", "another id"),
    ],
    ids=["key", "pipeline", "purpose", "request"],
)
def test_a_signature_fits_one_key_pipeline_purpose_and_request(signer, purpose, request_id):
    with pytest.raises(InvalidRequest, match="^settings: got .* without the signature"):
        signer.check(purpose, request_id, signed())


def test_any_changed_byte_is_noticed():
    whole = signed('{"priority": 1}')
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        with pytest.raises(InvalidRequest):
            SIGNER.check("prepared", "id", bytes(changed))
    for cut in range(len(whole)):
        with pytest.raises(InvalidRequest, match="send requests to the ensemble sd3"):
            SIGNER.check("prepared", "id", whole[:cut])


def test_parts_of_a_message_cannot_move_into_the_next_part():
    one = Signer(KEY, "sd3").sign("prepared", "ab", "c")[0]
    with pytest.raises(InvalidRequest):
        SIGNER.check("prepared", "a", one[:64] + b"bc")


@pytest.mark.parametrize(
    "changed",
    [
        {"t5_ids": np.asarray([[0, 1, 2, 4]])},
        {"t5_ids": np.arange(4)},
        {"t5_ids": np.arange(4, dtype=np.int32)[None]},
        {},
    ],
    ids=["value", "shape", "type", "absent"],
)
def test_tensors_are_covered(changed):
    covered = signed(tensors=values(IDS, NAMES))
    assert SIGNER.check("prepared", "id", covered, values(IDS, NAMES)) == b"{}"
    with pytest.raises(InvalidRequest):
        SIGNER.check("prepared", "id", covered, values(changed, NAMES))


def test_shapes_cover_the_shape_and_not_the_values():
    other = {"t5_ids": np.zeros((1, 4), np.int64)}
    assert shapes(IDS, NAMES) == shapes(other, NAMES)
    assert shapes(IDS, NAMES) != shapes({"t5_ids": other["t5_ids"][:, :3]}, NAMES)


def test_only_a_long_id_is_private_as_it_is():
    assert private("a" * SHORTEST) == "a" * SHORTEST
    for short in ("1", "a" * (SHORTEST - 1)):
        assert can_be_guessed(short)
        drawn = {private(short) for _ in range(100)}
        assert len(drawn) == 100
        assert all(name.startswith(f"{short}#") for name in drawn)
    assert not can_be_guessed(private(""))


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv(shared_state.VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


def test_models_of_one_server_draw_one_key(state):
    code = "from stepwise.request.shared_state import folder, key; print(key(folder()).hex())"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    keys = {process.communicate()[0].strip() for process in running}
    assert len(keys) == 1
    assert len(bytes.fromhex(keys.pop())) == 32
    assert [path.name for path in state.iterdir()] == ["key"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_without_a_folder_the_models_of_one_triton_find_each_other(tmp_path, monkeypatch):
    monkeypatch.delenv(shared_state.VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert folder() == tmp_path / f"stepwise-{os.getuid()}-{os.getppid()}"
    assert key(folder()) == key(folder())


def test_a_folder_that_others_can_read_is_refused(state):
    state.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="STEPWISE_STATE"):
        folder()
    state.rmdir()
    state.symlink_to(state.parent)
    with pytest.raises(PermissionError):
        folder()


def test_the_count_of_pictures_is_read_by_others(state):
    writer, reader = (Occupancy(folder(), "sd3", "denoise") for _ in range(2))
    assert reader.read() == 0
    for count in (256, 0, 7):
        writer.write(count)
        assert reader.read() == count
    assert Occupancy(folder(), "sdxl", "denoise").read() == 0
    writer.close()
    reader.close()


def test_a_pipeline_works_until_all_of_its_stages_report_no_work(state):
    counts = [Occupancy(folder(), "sd3", stage) for stage in STAGES]
    assert not working(folder(), ["sd3"])
    for count in counts:
        count.write(1)
        assert working(folder(), ["sd3"])
        count.write(0)
        assert not working(folder(), ["sd3"])
    # Nothing is known of a pipeline without counts.
    assert working(folder(), ["sd3", "other"])
    for count in counts:
        count.close()
