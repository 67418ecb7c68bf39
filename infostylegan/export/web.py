"""A generator as a folder with a page of sliders that any static server can serve, without a network.

The page runs the ONNX model in ONNX Runtime Web (MIT). Its files are no part of this package: they are taken
from a folder or archive that the user has, or fetched once, by digest, and kept in the cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from dnnlib.cache import cache_folder
from dnnlib.files import atomic_write
from infostylegan.codes import Uniform, shown_name
from infostylegan.export.card import listed, record
from infostylegan.export.errors import ExportError
from infostylegan.export.graph import require_onnx, save_onnx

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
INTEGRITY = (  # as the registry and package-lock.json write it
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# A file of the package's dist/, and its name in the page. Not every server knows what an .mjs is.
FILES = {
    "ort.wasm.min.js": "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
PAGE = ("index.html", "style.css", "page.js", "worker.js")
LIMIT = 200 * 2**20
REMEDY = (
    f"on a machine with a network run 'npm pack onnxruntime-web@{VERSION}' (or download {URL}) and give the "
    "file with --runtime"
)


def read_runtime(source: Path) -> dict[str, bytes]:
    """The runtime's files from `npm pack`'s archive, an unpacked package, or its dist folder. ExportError."""
    if source.is_dir():
        folder = source / "dist" if (source / "dist").is_dir() else source
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ExportError(f"{source}: no ONNX Runtime Web in it ({', '.join(missing)} missing); {REMEDY}")
        return {to: (folder / name).read_bytes() for name, to in FILES.items()}
    if not source.is_file():
        raise ExportError(f"{source}: no such file or folder; {REMEDY}")
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(source, "r:*") as archive:
            for name, to in FILES.items():
                member = archive.getmember(f"package/dist/{name}")
                file = archive.extractfile(member) if member.isfile() and member.size < LIMIT else None
                if file is None:
                    raise KeyError(name)
                found[to] = file.read()
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ExportError(f"{source}: no archive of onnxruntime-web ({error}); {REMEDY}") from error
    return found


def integrity(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def fetch_runtime(url: str = URL) -> Path:
    """The archive of the runtime, from the cache or else from `url`; refused unless it has the digest."""
    kept = cache_folder() / f"onnxruntime-web-{VERSION}.tgz"
    if kept.is_file() and integrity(kept.read_bytes()) == INTEGRITY:
        return kept
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = answer.read(LIMIT)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ExportError(f"could not fetch ONNX Runtime Web from {url} ({error}); {REMEDY}") from error
    if integrity(data) != INTEGRITY:
        raise ExportError(
            f"{url}: its digest is {integrity(data)[:20]}…, not that of {VERSION}: not used; {REMEDY}"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(kept) as file:
        file.write(data)
    return kept


def describe_page(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the page must know of the generator."""
    G, size = content["G_ema"], int(content["G_ema"].grown_resolution)
    names = {str(code): str(name) for code, name in record(content, "code_names").items()}
    labels, dataset = listed(content, "label_names"), record(content, "dataset").get("name")
    return {
        "title": f"InfoStyleGAN: {dataset}" if dataset else "InfoStyleGAN",
        "about": f"{size} × {size} pixels; {len(G.codes)} codes that the generator found without labels",
        "resolution": size,
        "noise_dim": G.noise_dim,
        "styles": G.mapping is not None,
        "labels": [labels[i] if i < len(labels) else str(i) for i in range(G.labels)],
        "codes": [
            {
                "code": code.name,
                "shown": shown_name(code.name, names),
                "kind": code.kind,
                "values": None if isinstance(code, Uniform) else len(code.traversal()),
            }
            for code in G.codes
        ],
    }


def save_web(
    folder: str | os.PathLike[str],
    content: Mapping[str, Any],
    *,
    runtime: str | os.PathLike[str] | None = None,
    url: str = URL,
    truncation: str = "codes",
) -> None:
    """Write the page, the model and the runtime into `folder`.

    runtime   where ONNX Runtime Web is; None: the cache, or else `url` (about 32 MB, once)
    Raises ExportError without the extra `export`, or where the runtime cannot be had.
    """
    require_onnx()
    folder = Path(folder)
    files = read_runtime(Path(runtime) if runtime is not None else fetch_runtime(url))
    folder.mkdir(parents=True, exist_ok=True)
    save_onnx(folder / "generator.onnx", content, truncation)
    (folder / "generator.json").write_text(json.dumps(describe_page(content), ensure_ascii=False), "utf-8")
    for name in PAGE:
        (folder / name).write_bytes((resources.files("infostylegan.export") / "page" / name).read_bytes())
    for name, data in files.items():
        (folder / name).write_bytes(data)
