"""The export command downloads repositories from a local mock of the Hub."""

import json
import os
import shutil
import subprocess
import sys
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.paths import ROOT, STEPWISE
from tests.unit.export.conftest import MINIATURE

COMMIT = "0123456789abcdef" * 2 + "01234567"
TOKEN = "hf_of_a_test"
DOWNLOAD = """
import sys
from stepwise.export.loading.source import open_source
from stepwise.families import FAMILIES
print(open_source(sys.argv[1], FAMILIES["sd3"]).folder)
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's API that a download needs.

    ``open/tiny`` is public, ``gated/tiny`` needs ``TOKEN``, and ``closed/tiny`` refuses even that
    token. ``broken/tiny`` gives server errors; other repositories are unknown.
    """

    folder: Path
    log: list[tuple[str, str | None]]

    def do_GET(self):
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        owner, name, *rest = path.split("/")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.log.append((f"{self.command} {self.path}", token))
        if owner == "broken":
            return self.answer(500)
        if name != "tiny" or owner not in ("open", "gated", "closed"):
            return self.answer(401, headers={"X-Error-Code": "RepoNotFound"})
        if rest[:1] == ["resolve"]:
            if owner == "closed" or (owner == "gated" and token != TOKEN):
                return self.answer(403, headers={"X-Error-Code": "GatedRepo"})
            return self.file("/".join(rest[2:]))
        return self.describe(f"{owner}/{name}", tree=rest[:1] == ["tree"])

    def do_HEAD(self):
        self.do_GET()

    def describe(self, repository, tree):
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        sizes = {str(path.relative_to(self.folder)): path.stat().st_size for path in files}
        if tree:
            body = [{"type": "file", "path": n, "size": s, "oid": "0"} for n, s in sizes.items()]
        else:
            siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            body = {"id": repository, "sha": COMMIT, "siblings": siblings}
        self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def file(self, name):
        data = (self.folder / name).read_bytes()
        headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.answer(200, data, headers)

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(folder):
    """A running Hub; each of its repositories contains the SD3 miniature."""
    handler = type("Handler", (Hub,), {"folder": folder, "log": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def endpoint(hub):
    return f"http://127.0.0.1:{hub.server_port}"


def run(arguments, hub, cache, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    kept |= {"HF_ENDPOINT": endpoint(hub), "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    kept |= environment
    return subprocess.run(
        arguments, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=120
    )


def refused(repository, hub, tmp_path, *words, **environment):
    target = tmp_path / "repository"
    command = [STEPWISE, "export", "sd3", "--checkpoint", repository, "--repository", str(target)]
    done = run(command, hub, tmp_path / "cache", **environment)
    print(done.stderr)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert all(word in line for word in (repository, *words)), line
    assert "Traceback" not in done.stderr
    assert not target.exists()


def test_only_needed_files_are_downloaded_and_then_cached(hub, folder, tmp_path):
    (folder / "transformer" / "model.onnx").write_bytes(b"not needed")
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not needed")
    (folder / "sd3_medium.safetensors").write_bytes(b"not needed")
    done = run([sys.executable, "-c", DOWNLOAD, "open/tiny"], hub, tmp_path)
    assert done.returncode == 0, done.stderr
    got, due = (
        {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
        for top in (Path(done.stdout.strip()), MINIATURE)
    )
    assert got == {name: due[name] for name in got}
    assert due.keys() - got.keys() <= {"README.md", "losses.json"}, due.keys() - got.keys()
    requests = hub.RequestHandlerClass.log
    assert {token for _, token in requests} == {""}
    requests.clear()
    hub.shutdown()
    hub.server_close()
    again = run([sys.executable, "-c", DOWNLOAD, "open/tiny"], hub, tmp_path)
    assert again.stdout == done.stdout, again.stderr


def test_a_gated_repository_is_downloaded_with_the_users_token(hub, tmp_path):
    done = run([sys.executable, "-c", DOWNLOAD, "gated/tiny"], hub, tmp_path, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model_index.json").is_file()
    # The library also sends requests that are unrelated to a repository.
    requests = [(line, token) for line, token in hub.RequestHandlerClass.log if "gated/" in line]
    assert len(requests) > 20
    assert {token for _, token in requests} == {TOKEN}


def test_a_gated_repository_without_a_token(hub, tmp_path):
    page = f"{endpoint(hub)}/gated/tiny"
    refused("gated/tiny", hub, tmp_path, page, "is gated", "accept", "hf auth login", "HF_TOKEN")


def test_a_gated_repository_with_a_token_that_has_no_access(hub, tmp_path):
    refused("closed/tiny", hub, tmp_path, "is gated", "its account has access", HF_TOKEN=TOKEN)


def test_a_missing_repository(hub, tmp_path):
    refused("nobody/nothing", hub, tmp_path, "no local folder or file", "does not exist", "private")


def test_a_server_error(hub, tmp_path):
    refused("broken/tiny", hub, tmp_path, "cannot be reached", "500", HF_HUB_ETAG_TIMEOUT="2")


def test_no_connection(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    refused("open/tiny", hub, tmp_path, "no local folder or file", endpoint(hub), "network")


def test_offline_mode(hub, tmp_path):
    refused("open/tiny", hub, tmp_path, "offline mode is enabled", HF_HUB_OFFLINE="1")
    assert hub.RequestHandlerClass.log == []


def test_a_repository_in_another_layout(hub, folder, tmp_path):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "HelloWorldXL.safetensors").write_bytes(b"never fetched")
    words = ("has no model_index.json", "HelloWorldXL.safetensors", "give")
    refused("open/tiny", hub, tmp_path, *words)


@pytest.mark.parametrize("path", ["miniatures/sd4", "a/b/c", "model.safetensors"])
def test_a_name_that_looks_like_a_path_is_never_requested(hub, tmp_path, path):
    refused(path, hub, tmp_path, "not a folder")
    assert hub.RequestHandlerClass.log == []
