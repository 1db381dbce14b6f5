"""Clients can list the pipelines of a server, and a misspelt name is an invalid request."""

import asyncio

import pytest

from stepwise.client import AsyncClient, Client, InvalidRequest, ServerUnavailable
from stepwise.client.cli.main import main
from stepwise.client.protocol import pipelines

ABSENT = "127.0.0.1:9"
UNKNOWN = "pipeline: got 'mok'; served are film, mock; did you mean 'mock'?"


def test_both_clients_list_the_pipelines(server):
    assert Client(server.grpc_url).pipelines() == ("film", "mock")
    assert asyncio.run(AsyncClient(server.grpc_url).pipelines()) == ("film", "mock")
    assert Client(f"{ABSENT},{server.grpc_url}").pipelines() == ("film", "mock")


def test_the_command_lists_the_pipelines(server, capsys):
    assert main(["models", "--url", server.grpc_url]) == 0
    assert capsys.readouterr().out == "film\nmock\n"
    assert main(["models", "--url", ABSENT]) == 1
    assert "is the server running" in capsys.readouterr().err


def test_an_unknown_pipeline_is_an_invalid_request(server):
    client = Client(server.grpc_url)
    for call in (client.inputs, client.about, lambda name: client.pictures(name, "a star")):
        with pytest.raises(InvalidRequest) as error:
            call("mok")
        assert str(error.value) == UNKNOWN


def test_an_unknown_pipeline_is_an_invalid_request_of_the_asyncio_client(server):
    client = AsyncClient(f"{server.grpc_url},{server.grpc_url}")
    with pytest.raises(InvalidRequest) as error:
        asyncio.run(client.pictures("mok", "a star"))
    assert str(error.value) == UNKNOWN


def test_a_name_like_no_other_gets_the_list_alone(server):
    with pytest.raises(InvalidRequest, match="got 'sd3'; served are film, mock$"):
        Client(server.grpc_url).inputs("sd3")


def test_one_server_that_is_away_leaves_the_cause_open(server):
    with pytest.raises(ServerUnavailable, match="no server took it"):
        Client(f"{ABSENT},{server.grpc_url}").inputs("mok")


class Metadata:
    name = "triton"


def test_another_server_lists_no_pipelines():
    with pytest.raises(ServerUnavailable, match="does not list pipelines: start stepwise serve"):
        pipelines(Metadata(), "host:1")
