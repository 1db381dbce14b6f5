"""The header of a trusted front, and parameters that are none."""

import pytest

from stepwise.description.errors import InvalidRequest
from stepwise.families import FAMILIES
from stepwise.request.peers import peer

SD3 = FAMILIES["sd3"]


@pytest.mark.parametrize("given", ["x-peer", "X-Peer"])
def test_the_configured_header_names_the_peer(given):
    assert peer({given: "10.0.0.7"}, "x-peer", SD3) == "10.0.0.7"
    assert peer({}, "x-peer", SD3) == ""
    assert len(peer({given: "a" * 1000}, "x-peer", SD3)) == 256


@pytest.mark.parametrize("name", ["", "x-peer"])
def test_another_parameter_is_an_unknown_setting(name):
    with pytest.raises(InvalidRequest, match="^stepz: there is no such setting; allowed are promp"):
        peer({"stepz": 4}, name, SD3)
    with pytest.raises(InvalidRequest):
        peer({"x-peer": "10.0.0.7"}, "", SD3)


def test_a_header_next_to_a_parameter_of_its_name_is_refused():
    with pytest.raises(InvalidRequest, match="x-peer: got it twice, as X-Peer, x-peer"):
        peer({"X-Peer": "10.0.0.7", "x-peer": "forged"}, "x-peer", SD3)
