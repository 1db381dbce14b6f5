"""Both clients and the command line through a front with TLS that checks a header."""

import asyncio

import pytest

from stepwise.client import AsyncClient, Client, ClientError, RequestFailed, ServerUnavailable
from stepwise.client.cli.main import main
from tests.support.front import certificate, fronted
from tests.support.servers import assert_freed

SECRET = "Bearer s3cret-t0ken"
HEADERS = {"Authorization": SECRET}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def front(server, files, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with fronted(server.grpc_url, files, ("authorization", SECRET)) as (front, port):
        yield front, f"https://localhost:{port}"


def test_every_call_of_the_client_has_tls_and_the_header(server, front):
    seen, url = front[0].seen, front[1]
    with Client(url, headers=HEADERS) as client:
        assert client.pipelines() == ("film", "mock")
        assert client.about("mock").samplers == ("euler", "heun")
        assert client.pictures("mock", "a star", steps=1, seed=7)[0].seed == 7
        events = client.generate("mock", "a star", steps=10_000)
        next(events)
        events.cancel()
        other = client.generate("mock", "a star", steps=10_000)
        next(other)
        other.close()
        assert_freed(server)
    methods = [method for method, _ in seen]
    assert {*methods} == {"ServerMetadata", "ModelConfig", "ModelStreamInfer"}
    # Three requests and two cancels.
    assert methods.count("ModelStreamInfer") == 5
    assert all(allowed for _, allowed in seen)


def test_every_call_of_the_asyncio_client_has_tls_and_the_header(server, front):
    async def run():
        async with AsyncClient(url, headers=HEADERS) as client:
            assert await client.pipelines() == ("film", "mock")
            assert (await client.pictures("mock", "a star", steps=1, seed=7))[0].seed == 7
            events = client.generate("mock", "a star", steps=10_000)
            await anext(events)
            await events.cancel()
            other = client.generate("mock", "a star", steps=10_000)
            await anext(other)
            await other.aclose()

    seen, url = front[0].seen, front[1]
    asyncio.run(run())
    assert_freed(server)
    assert [method for method, _ in seen].count("ModelStreamInfer") == 5
    assert all(allowed for _, allowed in seen)


def test_the_command_line_has_the_header(front, tmp_path, capsys):
    header = ["--header", f"Authorization: {SECRET}"]
    assert main(["models", "--url", front[1], *header]) == 0
    assert capsys.readouterr().out == "film\nmock\n"
    path = tmp_path / "a.mp4"
    words = ["video", "film", "a star", "--frames", "5", "--url", front[1]]
    assert main([*words, "--output", str(path), *header, "--header=x-user: é"]) == 1
    assert "header 'x-user': its value must be printable ASCII" in capsys.readouterr().err
    assert main([*words, "--output", str(path), *header, "--header=x-user: a b"]) == 0
    assert b"s3cret" not in path.read_bytes()
    again = ["repeat", str(path), "--url", front[1], "--output", str(tmp_path / "again.mp4")]
    assert main([*again, *header]) == 0
    assert main([*again, "--force"]) == 1
    said = capsys.readouterr()
    assert "a token is needed; check --header (headers=)" in said.err
    assert "s3cret" not in said.out + said.err


@pytest.mark.parametrize("headers", [None, {"authorization": "Bearer 0ther"}])
def test_a_refused_header_gives_one_sentence_without_its_value(front, headers):
    for call in (
        lambda: Client(front[1], headers=headers).pipelines(),
        lambda: asyncio.run(AsyncClient(front[1], headers=headers).pictures("mock", "a star")),
    ):
        with pytest.raises(RequestFailed) as error:
            call()
        assert str(error.value) == "a token is needed; check --header (headers=)"


def sentence(url):
    said = set()
    for call in (
        lambda: Client(url, timeout=10, headers=HEADERS).pipelines(),
        lambda: asyncio.run(AsyncClient(url, timeout=10, headers=HEADERS).pipelines()),
    ):
        with pytest.raises(ServerUnavailable) as error:
            call()
        said.add(str(error.value).removeprefix(f"{url}: "))
    return said


def test_a_certificate_that_is_not_trusted_gives_one_sentence(front, tmp_path, monkeypatch):
    other, _ = certificate(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    assert sentence(front[1]) == {
        "the server's certificate is not trusted here, or is not for this host: use the host's "
        "name, and name the file of your own authority in SSL_CERT_FILE"
    }


def test_a_certificate_for_another_host_gives_one_sentence(server, tmp_path, monkeypatch):
    files = certificate(tmp_path / "tls", "example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with fronted(server.grpc_url, files, ("authorization", SECRET)) as (_, port):
        (said,) = sentence(f"https://localhost:{port}")
    assert said.startswith("the server's certificate is not trusted here, or is not for this host")


def test_tls_and_plaintext_are_not_mixed(server, front):
    assert sentence(f"https://{server.grpc_url}") == {
        "the server does not speak TLS: give http://host:port, if the network is trusted"
    }
    with pytest.raises(ClientError):
        Client(front[1].replace("https://", ""), timeout=10).pipelines()


def test_http_urls_are_plaintext(server):
    with Client(f"http://{server.grpc_url}", headers=HEADERS) as client:
        assert client.pipelines() == ("film", "mock")
