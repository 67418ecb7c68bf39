"""Facts about the page of sliders: it runs offline, from any static server, and its images are those of G."""

import base64
import hashlib
import http.server
import io
import json
import os
import re
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from infostylegan import Generator
from infostylegan.__main__ import main
from infostylegan.export import ExportError, save_snapshot, web

ROOT = Path(__file__).resolve().parents[2]
CODES = "cat:3,bern:1,unif:2"


def runtime():
    """Where ONNX Runtime Web lies: by `npm install onnxruntime-web`, or $INFOSTYLEGAN_ORT_WEB. Or a skip."""
    places = [os.environ.get("INFOSTYLEGAN_ORT_WEB"), ROOT / "node_modules" / "onnxruntime-web"]
    for place in filter(None, places):
        if Path(place).exists():
            return Path(place)
    pytest.skip("no ONNX Runtime Web: npm install onnxruntime-web, or set INFOSTYLEGAN_ORT_WEB")


@pytest.fixture(scope="module", name="G")
def _generator():
    torch.manual_seed(0)
    small = {"latent_dim": 16, "fmap_base": 64, "fmap_max": 8, "mapping_layers": 2, "mapping_lr": 1.0}
    G = Generator(8, CODES, labels=2, **small)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return G.eval().requires_grad_(False)


@pytest.fixture(scope="module", name="folder")
def _folder(G, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="onnxscript (extra export) is not installed")
    at = tmp_path_factory.mktemp("web")
    names = {"unif1": "pigmentation <b>"}
    save_snapshot(at / "s.pkl", {"G_ema": G, "code_names": names, "label_names": ["well", "ill"]})
    told = CliRunner().invoke(
        main, ["export", str(at / "s.pkl"), "--format", "web", "--runtime", str(runtime())]
    )
    assert told.exit_code == 0, told.output
    return at / "s-web"


@pytest.fixture(name="address")
def _address(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(name="page")
def _page(browser):
    page = browser.new_page()
    page.wrong, page.asked = [], []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


def pixels(page):
    data = page.evaluate("() => document.getElementById('image').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")).astype(
        int
    )


def settled(page, drawn):
    """Wait until more than `drawn` images were drawn and none is under way; how many there were."""
    for _ in range(600):
        now, address = page.evaluate(
            "() => [Number(document.getElementById('image').dataset.drawn || 0), busy]"
        )
        if now > drawn and not address:
            return now
        page.wait_for_timeout(50)
    pytest.fail(f"no image after 30 s: {page.inner_text('#status')}")


def test_in_a_browser_every_slider_reaches_the_image_and_the_image_is_that_of_pytorch(G, address, page):
    page.goto(address)
    settled(page, 0)
    z = torch.tensor([page.evaluate(f"() => Array.from(noise(0, {G.noise_dim}))")])
    c = torch.zeros(1, 4)

    def same(psi=1.0, label=0):
        image = G(z, c, torch.tensor([label]), psi, noise="const")[0]
        expected = image.add(1).mul(127.5).clamp(0, 255).permute(1, 2, 0).numpy()
        for _ in range(300):  # the image follows the sliders, on a busy machine after a while
            if np.abs(pixels(page) - expected).max() <= 1.01:
                return True
            page.wait_for_timeout(100)
        return False

    assert same()
    page.locator("#unif1").fill("0.8")
    c[0, 3] = 0.8
    assert same()
    page.check("#bern0")
    page.check("#cat0-2")
    c[0, :2] = torch.tensor([2.0, 1.0])
    assert same()
    page.check("#label-1")
    page.locator("#psi").fill("0.5")
    assert same(0.5, 1)
    # The address shows the same image again.
    there = page.url
    assert "unif1=0.8" in there
    before = pixels(page)
    page.goto("about:blank")
    page.goto(there)
    settled(page, 0)
    assert np.array_equal(pixels(page), before)
    assert page.locator("#unif1").input_value() == "0.8"
    page.click("#reset")
    c.zero_()
    assert same()
    # Nothing but its own server is asked, nothing goes wrong, and a name is text.
    assert all(url.startswith((address, "about:", "data:", "blob:")) for url in page.asked)
    assert page.wrong == []
    assert page.locator("label[for=unif1]").inner_text() == "unif1 (pigmentation <b>)"


def test_z_in_the_page_is_standard_normal_and_depends_on_the_seed(address, page):
    page.goto(address)
    z = np.array(page.evaluate("() => Array.from(noise(7, 20001))"))
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.25
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.03
    assert page.evaluate("() => noise(7, 2)[0] !== noise(8, 2)[0]")


def test_the_page_works_by_keyboard_on_a_phone_and_says_what_is_missing(address, folder, page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(address)
    drawn = settled(page, 0)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("() => document.getElementById('image').clientWidth") > 250
    page.focus("#unif0")
    page.keyboard.press("ArrowRight")
    settled(page, drawn)
    assert page.locator("#unif0").input_value() == "0.01"
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('input,select,button')].filter("
        "e => !(e.labels && e.labels.length) && !e.textContent.trim()).length"
    )
    assert unnamed == 0
    page.route("**/generator.onnx", lambda route: route.abort())
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("#status.failed", timeout=30_000)


def test_the_folder_holds_what_a_static_server_needs_and_no_address_of_elsewhere(folder):
    names = {p.name for p in folder.iterdir()}
    assert names == {"generator.onnx", "generator.json", *web.PAGE, *web.FILES.values()}
    for name in web.PAGE:
        text = (folder / name).read_text("utf-8")
        assert set(re.findall(r"https?://[^ \"']*", text)) <= {"http://127.0.0.1:8000"}
    about = json.loads((folder / "generator.json").read_text("utf-8"))
    assert about["labels"] == ["well", "ill"]
    assert [code["kind"] for code in about["codes"]] == ["cat", "bern", "unif", "unif"]


# ---- the runtime ---------------------------------------------------------------------------------------


def archive(folder, prefix="package/dist", names=tuple(web.FILES)):
    path = folder / "onnxruntime-web.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            data = name.encode()
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_the_runtime_is_read_from_an_archive_a_package_or_its_dist(tmp_path):
    expected = {to: name.encode() for name, to in web.FILES.items()}
    assert web.read_runtime(archive(tmp_path)) == expected
    (tmp_path / "p" / "dist").mkdir(parents=True)
    for name in web.FILES:
        (tmp_path / "p" / "dist" / name).write_bytes(name.encode())
    assert web.read_runtime(tmp_path / "p") == expected
    assert web.read_runtime(tmp_path / "p" / "dist") == expected


def test_without_a_runtime_the_remedy_is_told(tmp_path):
    (tmp_path / "text.tgz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    part = archive(tmp_path, names=["ort.wasm.min.js"])
    for place in (tmp_path / "nowhere", tmp_path / "text.tgz", tmp_path / "empty", part):
        with pytest.raises(ExportError, match="npm pack onnxruntime-web"):
            web.read_runtime(place)


def test_a_fetched_runtime_is_kept_and_used_only_with_its_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    source = archive(tmp_path)
    with pytest.raises(ExportError, match="digest"):
        web.fetch_runtime(source.as_uri())
    assert not (tmp_path / "cache").exists()
    digest = base64.b64encode(hashlib.sha512(source.read_bytes()).digest()).decode()
    monkeypatch.setattr(web, "INTEGRITY", f"sha512-{digest}")
    kept = web.fetch_runtime(source.as_uri())
    assert kept.read_bytes() == source.read_bytes()
    assert web.fetch_runtime("http://127.0.0.1:9/gone") == kept  # no second time
    kept.write_bytes(b"damaged")
    with pytest.raises(ExportError, match="could not fetch"):
        web.fetch_runtime("http://127.0.0.1:9/gone")
