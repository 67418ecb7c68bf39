"""Downloads, from a server on this machine that can break off, forget ranges, redirect and lie."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dnnlib import downloads
from dnnlib.downloads import DownloadError, download

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """What the next answers do, and what was asked."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.ranges = True
        self.break_after: int | None = None
        self.redirect: str | None = None
        self.asked: list[str | None] = []


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if self.path != "/file":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after] if state.break_after is not None else body)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield state, f"http://127.0.0.1:{http.server_port}/file"
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_file_comes_whole_and_leaves_nothing_beside_it(server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(server[1], tmp_path / "deep" / "file", DIGEST[:8], lambda *args: seen.append(args))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")] == ["file"]


def test_a_file_that_is_here_already_is_not_asked_for(server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    download(server[1], tmp_path / "file", DIGEST)
    assert server[0].asked == []


def test_a_damaged_file_of_that_name_is_replaced(server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    assert download(server[1], tmp_path / "file", DIGEST).read_bytes() == CONTENT


def test_a_broken_connection_is_told_and_the_next_call_goes_on_from_there(server, tmp_path: Path) -> None:
    state, url = server
    state.break_after = 300_000
    with pytest.raises(DownloadError, match="broke off after 300,000 of 1,024,000 bytes"):
        download(url, tmp_path / "file", DIGEST)
    assert not (tmp_path / "file").exists()
    state.break_after = None
    assert download(url, tmp_path / "file", DIGEST).read_bytes() == CONTENT
    assert state.asked == [None, "bytes=300000-"]


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, tmp_path: Path) -> None:
    state, url = server
    state.ranges = False
    (tmp_path / "file.partial").write_bytes(CONTENT[:5000])
    assert download(url, tmp_path / "file", DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", CONTENT + b"more", CONTENT])
def test_whatever_an_earlier_call_left_the_file_comes_right(server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "file.partial").write_bytes(left)
    assert download(server[1], tmp_path / "file", DIGEST).read_bytes() == CONTENT


def test_content_of_another_digest_is_thrown_away_and_named(server, tmp_path: Path) -> None:
    state, url = server
    state.content = b"<html>log in first</html>"
    with pytest.raises(DownloadError, match="thrown away") as error:
        download(url, tmp_path / "file", DIGEST[:8])
    assert "\n" not in str(error.value)
    assert not [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")]


def test_what_is_not_there_is_named(server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="Not Found"):
        download(server[1] + "s", tmp_path / "file", DIGEST)


def test_plain_http_is_refused_at_once_and_behind_a_redirect(server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="only https"):
        download("http://example.org/file", tmp_path / "file", DIGEST)
    with pytest.raises(DownloadError, match="only https"):
        download("file:///etc/hostname", tmp_path / "file", DIGEST)
    server[0].redirect = "http://example.org/file"
    with pytest.raises(DownloadError, match=r"http://example\.org/file: only https"):
        download(server[1], tmp_path / "file", DIGEST)


def test_a_proxy_named_by_the_environment_is_asked(server, tmp_path: Path, monkeypatch) -> None:
    state, url = server
    monkeypatch.setenv("http_proxy", url.removesuffix("/file"))
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(downloads, "LOOPBACK", {"elsewhere.invalid"})
    # A proxy is asked for the whole address, which this one does not know; that it was asked is the point.
    with pytest.raises(DownloadError, match="Not Found"):
        download("http://elsewhere.invalid/other", tmp_path / "file", DIGEST)
    assert state.asked == [None]


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DownloadError, match="taken"):
        download(server[1], tmp_path / "taken" / "file", DIGEST)
