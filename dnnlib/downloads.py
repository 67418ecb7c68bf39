"""Files from the internet: by https, checked against a digest, taken up again where they broke off."""

from __future__ import annotations

import contextlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from dnnlib.errors import UserError
from dnnlib.files import explain_disk_full, sha256_file
from dnnlib.lock import exclusive

TIMEOUT = 30.0  # seconds without an answer
BLOCK = 1 << 18
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Progress = Callable[[int, int | None], None]  # (bytes done, bytes in all, if known)


class DownloadError(UserError):
    """A file could not be fetched; the message names it, the address and the reason."""


def download(url: str, path: str | os.PathLike[str], sha256: str, progress: Progress | None = None) -> Path:
    """The file at `url`, kept as `path`; it is there only once its SHA-256 begins with `sha256`.

    A file that is already there is used if it agrees, and replaced if it does not. What was fetched before an
    interruption stays beside it as `<name>.partial`, and the next call goes on from there. Proxies are those
    of the environment (https_proxy and its like). Raises DownloadError.
    """
    path = Path(path)
    if path.is_file() and sha256_file(path).startswith(sha256):
        return path
    _check_scheme(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_name(f".{path.name}.lock")):
            if path.is_file() and sha256_file(path).startswith(sha256):
                return path  # another process was here first
            partial = path.with_name(f"{path.name}.partial")
            # What was left of an earlier call may be of another file: then once more from the beginning.
            for resumed in (True, False) if partial.exists() else (False,):
                with explain_disk_full(partial):
                    _fetch(url, partial, progress)
                found = sha256_file(partial)
                if found.startswith(sha256):
                    os.replace(partial, path)
                    return path
                partial.unlink()
                if not resumed:
                    raise DownloadError(
                        f"{url}: what came has the SHA-256 {found[:16]}…, not {sha256}…; it was thrown away. "
                        "Try again, or copy the file here from elsewhere"
                    )
        raise AssertionError("unreachable: the last attempt returns or raises")
    except (OSError, http.client.HTTPException) as error:
        # urllib wraps what it meets; the reason within is what helps.
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url}: cannot be downloaded to {path} ({reason})") from error


def _check_scheme(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise DownloadError(f"{url}: only https is trusted")


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str, partial: Path, progress: Progress | None) -> None:
    """Bring `partial` to its whole length, from where it is."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "infostylegan", "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.build_opener(_SecureRedirects())
    try:
        response = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing after what is here: whole, or of another file. The digest will tell; if not, begin anew.
        return
    with contextlib.closing(response):
        resumed = response.status == 206
        with open(partial, "ab" if resumed else "wb") as file:
            _copy(response, file, have if resumed else 0, progress)


def _copy(response: Any, file: IO[bytes], done: int, progress: Progress | None) -> None:
    length = response.headers.get("Content-Length")
    total = done + int(length) if length is not None else None
    while block := response.read(BLOCK):
        file.write(block)
        done += len(block)
        if progress is not None:
            progress(done, total)
    if total is not None and done < total:
        raise OSError(f"the connection broke off after {done:,} of {total:,} bytes; run again to go on")
