"""A tiny trained-looking snapshot, the studio over it, and a client that has opened its page."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from infostylegan import Discriminator, Generator
from infostylegan.export import save_snapshot
from infostylegan.studio import photos
from infostylegan.studio.model import Model
from infostylegan.studio.security import Access
from infostylegan.studio.server import make_app

CODES = "cat:3,bern:1,unif:2"


def make_snapshot(
    path: Path, labels: int = 0, codes: str = CODES, channels: int = 3, styles: bool = True
) -> Path:
    torch.manual_seed(3)
    sizes = {"fmap_base": 64, "fmap_max": 8, "labels": labels, "channels": channels}
    G = Generator(16, codes, latent_dim=16, styles=styles, **sizes).eval()
    for p in G.parameters():  # weights as they start hardly let an image depend on its code
        p.data.add_(0.3 * torch.randn_like(p))
    D = Discriminator(16, codes, **sizes).eval()
    names = {"unif1": "pigmentation"}
    save_snapshot(path, {"G_ema": G, "D": D, "code_names": names, "images": 200_000, "label_names": None})
    return path


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_snapshot(tmp_path_factory.mktemp("00007-tiny") / "network-snapshot-000200.pkl")


@pytest.fixture(scope="session")
def labelled_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_snapshot(tmp_path_factory.mktemp("labelled") / "network-snapshot-000200.pkl", labels=3)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "STEPS", 6)


@pytest.fixture
def access() -> Access:
    return Access(cookie="studio-test")


@pytest.fixture
def app(snapshot: Path, access: Access, tmp_path: Path) -> Any:
    return make_app(Model(snapshot), tmp_path / "studies", access)


@pytest.fixture
def client(app: Any, access: Access) -> Iterator[TestClient]:
    with open_client(app, access) as client:
        yield client


@contextlib.contextmanager
def open_client(app: Any, access: Access) -> Iterator[TestClient]:
    """A browser's stand-in that has come in by the start URL."""
    with TestClient(app, base_url="http://127.0.0.1:8765", headers={"X-Studio": "1"}) as client:
        assert client.get(f"/?token={access.token}").status_code == 200
        yield client


def settings(**changes: Any) -> dict[str, Any]:
    codes = {"cat0": 0, "bern0": 0, "unif0": 0, "unif1": 0, **changes.pop("codes", {})}
    return {"seed": 0, "psi": 1.0, "label": 0, "codes": codes, "photo": None, **changes}


def pixels(png: bytes) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def picture(size: int | tuple[int, int] = 40, format: str = "PNG") -> bytes:
    """A photograph: smooth colours."""
    width, height = (size, size) if isinstance(size, int) else size
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    image = np.stack([255 * x, 255 * y, 128 + 0 * x], axis=2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(image).save(out, format=format)
    return out.getvalue()


def wait(client: TestClient, job: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
    """The job once it no longer runs."""
    deadline = time.monotonic() + seconds
    while job["state"] == "running":
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return job


def raw(
    app: Any,
    path: str,
    method: str = "GET",
    headers: list[tuple[str, str]] | None = None,
    body: Callable[[], Any] | None = None,
    query: str = "",
) -> tuple[int, dict[str, str], bytes]:
    """The answer to exactly this request, which a well-behaved client would not send."""
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        if body is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        chunk = body()
        if asyncio.iscoroutine(chunk):
            chunk = await chunk
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers or []],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, content


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app behind a real socket on loopback: its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
