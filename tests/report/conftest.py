"""Run folders to report on: a whole one, and one whose every text is an attack."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from infostylegan import Discriminator, Generator
from infostylegan.export import save_snapshot

CODES = "cat:3,bern:1,unif:2"
TINY = {"fmap_base": 64, "fmap_max": 8}
EVIL = "</script></style><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&\x00\x1b"


def tick(kimg, **other):
    return {
        "tick": int(kimg), "images": int(kimg * 1000), "kimg": kimg, "resolution": 8, "fade": 1.0,
        "loss_g": 2 / (1 + kimg), "loss_d": 1.0, "r1": 0.1, "score_real": 0.3, "score_fake": -0.3,
        "information": {"cat0": kimg / 10, "bern0": 0.6, "unif0": 1.0, "unif1": -0.01},
        "spread": 0.8, "spread_overall": 1.0, "seconds": 60 * kimg, "sec_per_kimg": 60.0,
        "memory_bytes": 1 << 28, **other,
    }  # fmt: skip


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def picture(path, size=(64, 48), seed=0, square=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1] // square, size[0] // square, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels.repeat(square, 0).repeat(square, 1)).save(path, compress_level=1)


def options(**other):
    return {
        "data": "fundus", "data_digest": "ab" * 32, "resolution": 8, "channels": 3, "label_count": 0,
        "codes": CODES, "uniform": "truncnormal", "sigma_min": 0.2, "beta": 0.3, "styles": True, "kimg": 10.0,
        "run": {"command": ["train.py", "--beta", "1"], "version": "0.1.0"}, **other,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run that came to its end, with metrics."""
    folder = tmp_path / "00000-fundus8-beta0.3"
    folder.mkdir()
    (folder / "training_options.json").write_text(json.dumps(options()))
    write_lines(folder / "stats.jsonl", [tick(k) for k in range(1, 11)])
    result = {"images": 10000, "information": {"G_ema": {**tick(9.5)["information"], "cat0": 0.987}}}
    write_lines(folder / "result.jsonl", [result])
    torch.manual_seed(0)
    G, D = Generator(8, CODES, latent_dim=16, **TINY), Discriminator(8, CODES, **TINY)
    dataset = {"name": "fundus", "digest": "ab" * 32, "images": 8192}
    content = {"G": G, "D": D, "G_ema": G, "code_names": {"unif0": "pigmentation"}, "dataset": dataset}
    save_snapshot(folder / "network-snapshot-000010.pkl", content)
    for k in (5, 10):
        picture(folder / f"fakes{k:06d}.png", seed=k)
    picture(folder / "reals.png")
    for code in ("cat0", "bern0", "unif0", "unif1"):
        picture(folder / f"traverse-{code}.png")
    records = [
        {"metric": "fid", "results": {"fid": 50.0 - k}, "interval": {"fid": [48.0 - k, 52.5 - k]},
         "snapshot": f"network-snapshot-{k:06d}.pkl", "images": k * 1000,
         "protocol": {"reals": 8192, "seed": 0}, "time": "2026-11-25T17:00:00Z"}
        for k in (5, 10)
    ]  # fmt: skip
    write_lines(folder / "metric-fid.jsonl", records)
    (folder / "log.txt").write_text("Run folder: x\ntick 1\nwarning: the spread is low\n")
    return folder


@pytest.fixture
def hostile(tmp_path):
    """A run folder whose every text is markup, with files that are not what they are called."""
    folder = tmp_path / "00001-<img src=x onerror=alert(1)>"
    folder.mkdir()
    evil = options(data=EVIL, data_digest=EVIL, extra={EVIL: [EVIL, None]})
    evil["run"] = {"command": [EVIL], "version": EVIL}
    (folder / "training_options.json").write_text(json.dumps(evil))
    strange = tick(2, information={EVIL: 1.0, "cat0": "text"}, loss_g=EVIL, memory_bytes=EVIL, spread=None)
    write_lines(folder / "stats.jsonl", [tick(1), strange, {"kimg": None}, {"images": True}])
    write_lines(
        folder / "metric-fid.jsonl",
        [{"results": {EVIL: EVIL, "fid": 1.0}, "interval": {"fid": EVIL}, "snapshot": EVIL, "images": EVIL,
          "protocol": {EVIL: EVIL}, "notes": [EVIL], "time": EVIL}],
    )  # fmt: skip
    (folder / "log.txt").write_bytes(b"\xff\xfe" + EVIL.encode() + b"\nwarning: " + EVIL.encode())
    (folder / "fakes000001.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    picture(folder / "traverse-<b>x<b>.png")
    (folder / "network-snapshot-000001.pkl").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    (folder / "study").mkdir()
    (folder / "study" / "study.json").write_text(json.dumps({"attribute": EVIL}))
    return folder
