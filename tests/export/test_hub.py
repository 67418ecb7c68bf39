"""Facts about the hub, against a stand-in of it: what goes up comes down, and nothing of it is executed."""

import base64
import hashlib
import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
import urllib.parse

import pytest
import torch

from infostylegan import Generator, load_generator
from infostylegan.export import load_snapshot, save_snapshot

pytest.importorskip("huggingface_hub", reason="huggingface_hub (extra hub) is not installed")

TOKEN = "hf_stand_in"


class StandIn(http.server.BaseHTTPRequestHandler):
    """As much of the hub as one repository needs: create, preupload, LFS, commit, list, resolve."""

    protocol_version = "HTTP/1.1"

    @property
    def store(self):
        return self.server.store

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.pop("Content_Length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_any(self):
        body = self.body()
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.store["requests"].append((self.command, path))
        here = f"http://{self.headers['Host']}"
        if path.startswith("/lfs/"):
            self.store["lfs"][path[5:]] = body
            return self.answer(200)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.store["private"] = asked.get("private", asked.get("visibility") == "private")
            return self.answer(200, {"url": f"{here}/{asked.get('organization', 'me')}/{asked['name']}"})
        if path == "/api/validate-yaml":  # the hub reads the head of a model card
            assert json.loads(body)["content"].startswith("---\nlibrary_name: infostylegan\n")
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            # As on the hub, .gitattributes sends tensors to large storage.
            files = [
                {"path": f["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return self.answer(200, {"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": o["oid"],
                    "size": o["size"],
                    "actions": {"upload": {"href": f"{here}/lfs/{o['oid']}"}},
                }
                for o in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.store["files"][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.store["files"][value["path"]] = self.store["lfs"][value["oid"]]
                else:
                    self.store["message"] = value["summary"]
            commit = f"{here}/me/net/commit/{'c' * 40}"
            return self.answer(
                200, {"success": True, "commitOid": "c" * 40, "commitUrl": commit, "hookOutput": ""}
            )
        files = self.store["files"]
        if "/tree/" in path and files:
            return self.answer(
                200, [{"type": "file", "path": n, "size": len(d), "oid": etag(d)} for n, d in files.items()]
            )
        if path.startswith("/api/models/me/net") and files:
            return self.answer(
                200, {"id": "me/net", "sha": "c" * 40, "siblings": [{"rfilename": n} for n in files]}
            )
        name = path.rpartition(f"/resolve/{'c' * 40}/")[2]
        if name in files:
            data = files[name]
            return self.answer(
                200, data, ETag=f'"{etag(data)}"', X_Repo_Commit="c" * 40, Accept_Ranges="bytes"
            )
        return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815


def etag(data):
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.store = {"files": {}, "lfs": {}, "requests": []}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def snapshot(tmp_path):
    torch.manual_seed(0)
    G = Generator(8, "cat:3,unif:1", latent_dim=16, fmap_base=64, fmap_max=8)
    save_snapshot(tmp_path / "s.pkl", {"G_ema": G, "images": 7, "code_names": {"cat0": "shape"}})
    return tmp_path / "s.pkl"


def run(hub, folder, *arguments, token=TOKEN):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "hf"),
                    "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
                    "PYTHONPATH": os.getcwd()}  # fmt: skip
    if token:
        environment["HF_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-m", "infostylegan", "hub", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=300, cwd=folder,
    )  # fmt: skip


def test_what_goes_up_comes_down_with_its_card_and_the_same_images(hub, tmp_path, snapshot):
    up = run(hub, tmp_path, "upload", snapshot, "me/net", "--message", "First")
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith("me/net: private, http://127.0.0.1")
    files = hub.store["files"]
    assert {"README.md", "config.json", "model.safetensors"} <= set(files)
    assert files["README.md"].startswith(b"---\nlibrary_name: infostylegan\n")
    assert hub.store["private"] is True
    assert hub.store["message"] == "First"
    assert len(hub.store["lfs"]) == 1  # the weights went the way of large files
    files["evil.py"] = b"raise SystemExit('executed')"
    down = run(hub, tmp_path, "download", "me/net")
    assert down.returncode == 0, down.stderr
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert load_snapshot(tmp_path / "net")["code_names"] == {"cat0": "shape"}
    old, new = load_generator(snapshot), load_generator(tmp_path / "net")
    for name, value in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], value), name
    again = run(hub, tmp_path, "download", "me/net")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def refused(told, words):
    assert told.returncode == 2
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stderr.strip().splitlines()[-1].startswith("Error: ")


def test_a_payload_in_the_place_of_the_weights_is_refused_and_leaves_no_folder(hub, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    evil = pickle.dumps(Payload())
    hub.store["files"] = {"model.safetensors": evil, "config.json": b"{}", "pytorch_model.bin": evil}
    refused(run(hub, tmp_path, "download", "me/net"), "safetensors")
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "net").exists()
    assert not any("pytorch_model" in path for _, path in hub.store["requests"])


def test_without_a_token_or_a_repository_there_is_one_clear_line(hub, tmp_path, snapshot):
    refused(run(hub, tmp_path, "upload", snapshot, "me/net", token=""), "upload to me/net")
    refused(run(hub, tmp_path, "download", "me/nothing"), "download of me/nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow  # it is tried again for half a minute
def test_without_a_hub_there_is_one_clear_line(hub, tmp_path, snapshot):
    hub.shutdown()
    hub.server_close()
    refused(run(hub, tmp_path, "upload", snapshot, "me/net"), "no connection to the hub")
