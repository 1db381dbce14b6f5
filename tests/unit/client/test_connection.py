import grpc
import pytest

from stepwise.client import AsyncClient, Client
from stepwise.client.cli.main import main
from stepwise.client.connection import Server, headers
from stepwise.client.errors import InvalidRequest


@pytest.mark.parametrize(
    ("url", "target", "secure"),
    [
        ("127.0.0.1:8001", "127.0.0.1:8001", False),
        ("unix:/run/stepwise", "unix:/run/stepwise", False),
        ("http://host:8001", "host:8001", False),
        ("HTTPS://host:8001/", "host:8001", True),
        ("https://host", "host:443", True),
        ("https://[::1]:8001", "[::1]:8001", True),
    ],
)
def test_the_scheme_of_a_url_chooses_tls(url, target, secure):
    server = Server(url, grpc)
    assert (server.url, server._target, server._secure) == (url, target, secure)


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("http://host", "http://… with a path, or without host or port"),
        ("https://host:8001/v2", "https://… with a path"),
        ("https://:8001", "https://… with a path, or without host"),
        ("https://host:port", "https://… with a path, or without host or port"),
        ("https://user:s3cret@host:8001", "https://… with a user name; give https://host:port"),
    ],
)
def test_another_url_is_refused_without_its_password(url, got):
    for client in (Client, AsyncClient):
        with pytest.raises(InvalidRequest) as error:
            client(f"127.0.0.1:8001,{url}")
        assert str(error.value).startswith(f"url: got {got}")
        assert "s3cret" not in str(error.value)


def test_headers_are_sent_in_lower_case():
    given = {"Authorization": "Bearer a b", "x_1.y-z": "~!"}
    assert headers(given) == (("authorization", "Bearer a b"), ("x_1.y-z", "~!"))
    assert headers(None) == ()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("a b", "s3cret", "header 'a b': allowed in its name are letters, digits and the char"),
        ("", "s3cret", "header '': allowed in its name"),
        (":authority", "s3cret", "header ':authority': allowed in its name"),
        ("Trace-Bin", "s3cret", "header 'Trace-Bin': gRPC sets this header, or reads it as bin"),
        ("grpc-timeout", "s3cret", "header 'grpc-timeout': gRPC sets this header"),
        ("TE", "s3cret", "header 'TE': gRPC sets this header"),
        ("a", "s3cret\n", "header 'a': its value must be printable ASCII text, without space at"),
        ("a", " s3cret", "header 'a': its value must be printable ASCII text"),
        ("a", "s3crét", "header 'a': its value must be printable ASCII text"),
        ("a", "", "header 'a': its value must be printable ASCII text"),
        ("a", b"s3cret", "header 'a': its value must be printable ASCII text"),
    ],
)
def test_a_header_that_grpc_does_not_send_is_refused_without_its_value(name, value, says):
    for client in (Client, AsyncClient):
        with pytest.raises(InvalidRequest) as error:
            client(headers={name: value})
        assert str(error.value).startswith(says)
        assert "s3cr" not in str(error.value)


@pytest.mark.parametrize("command", [["models"], ["page"], ["generate", "sd3", "a star"]])
@pytest.mark.parametrize("header", ["s3cret", "Authorization:", "Authorization: "])
def test_a_header_without_a_value_is_refused_without_showing_it(capsys, command, header):
    assert main([*command, "--header", header]) == 1
    said = "error: --header: give the name and the value as 'NAME: VALUE', in quotes\n"
    assert capsys.readouterr().err == said
