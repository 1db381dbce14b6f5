"""Clients that leave at random moments, in every way, change nothing for the server."""

from benchmarks.commands import leavers


def test_leaving_clients_neither_end_the_server_nor_leave_anything_behind(families_server):
    figures = leavers.measure(families_server, count=600)
    print(f"{figures['ways']}: before {figures['before']}, after {figures['after']}")
    assert figures["failures"] == []
    assert sum(figures["ways"].values()) == 600
    assert set(figures["ways"]) == set(leavers.WAYS)
