"""From a slider's move to the picture on the page: how long the studio takes.

    python benchmarks/studio.py --resolution 128 --threads 2
    python benchmarks/studio.py --resolution 128 --threads 2 --full --browser chromium

A generator with fresh weights (they cost what trained ones do) in a studio of its own process, over loopback:

- `generator`: G alone, latents to pixels, in the process that asks;
- `request`: settings out, PNG back, one after the other on one connection;
- `page` (with --browser): in headless Chromium, from a slider's input event to the new picture decoded.

The three take turns within each round, a round a seed and a value, so that a change of the machine's speed
meets all of them. Medians, 90th percentiles, and medians of the ratios to `generator`. `CPU` is the mean of
the processor time that this process and all that it has started (studio, browser) took: with one thread, on a
machine that does other work, it is about what the wall clock would have shown on an idle one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from infostylegan import Generator
from infostylegan.export import save_generator
from infostylegan.render.grids import to_uint8

SMALL = {"latent_dim": 64, "fmap_base": 1024, "fmap_max": 64, "mapping_layers": 2}
MOVE = """async (value) => {
    const slider = document.getElementById("code-unif0");
    const image = document.querySelector(".easel img");
    const begin = performance.now();
    slider.value = String(value);
    slider.dispatchEvent(new Event("input"));
    while (JSON.parse(image.dataset.shown).codes.unif0 !== Number(slider.value)) {
        await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return performance.now() - begin;
}"""


def processor_time() -> float:
    """Seconds of processor time of this process and its living descendants (Linux)."""
    parents, spent = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                spent[int(entry.name)] = int(fields[11]) + int(fields[12])
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(spent[pid] for pid in mine) / os.sysconf("SC_CLK_TCK")


def start(snapshot: Path, threads: int) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "infostylegan", "studio", str(snapshot), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--threads", str(threads)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


def request_timer(address: str) -> Callable[[float], float]:
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", f"/?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    headers = {"X-Studio": "1", "Cookie": (answer.getheader("set-cookie") or "").partition(";")[0]}

    def timed(value: float) -> float:
        try:
            return ask(value)
        except (ConnectionError, http.client.HTTPException):  # closed for having been idle
            connection.close()
            return ask(value)

    def ask(value: float) -> float:
        begin = time.perf_counter()
        body = json.dumps({"seed": 1, "psi": 0.7, "codes": {"unif0": value}})
        connection.request("POST", "/api/image", body, headers)
        answer = connection.getresponse()
        png = answer.read()
        assert png[:4] == b"\x89PNG", png[:200]
        return 1000 * (time.perf_counter() - begin)

    return timed


def generator_timer(G: Generator) -> Callable[[float], float]:
    z, c = G.sample_latents(1, generator=torch.Generator().manual_seed(1))

    def timed(value: float) -> float:
        begin = time.perf_counter()
        c[:, G.codes.names.index("unif0")] = value
        with torch.no_grad():
            to_uint8(G(z, c, psi=0.7, noise="const"))
        return 1000 * (time.perf_counter() - begin)

    return timed


def page_timer(address: str, executable: str, stack: list[Any]) -> Callable[[float], float]:
    from playwright.sync_api import sync_playwright

    driver = sync_playwright().start()
    stack.append(driver.stop)
    browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
    stack.append(browser.close)
    page = browser.new_page()
    page.goto(address + "#seed=1&psi=0.7")
    page.wait_for_selector(".easel img[data-shown]")
    page.locator("#code-unif0").focus()
    page.wait_for_selector(".cell >> nth=6")
    return lambda value: float(page.evaluate(MOVE, value))


@click.command()
@click.option("--resolution", default=128, show_default=True)
@click.option("--full", is_flag=True, help="The paper's width in the place of a small model.")
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=60, show_default=True)
@click.option("--browser", help="A Chromium to measure the page in.")
def main(resolution: int, full: bool, threads: int, rounds: int, browser: str | None) -> None:
    """Time a slider's way to its picture."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    codes = "cat:3,bern:7,unif:10" if full else "cat:3,bern:2,unif:3"
    G = Generator(resolution, codes, **({} if full else SMALL)).eval().requires_grad_(False)
    click.echo(
        f"{resolution}², {sum(p.numel() for p in G.parameters()):,} parameters, {threads} threads, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    closing: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "network-snapshot-000000.pkl"
        save_generator(snapshot, G)
        process, address = start(snapshot, threads)
        try:
            timers = {"generator": generator_timer(G), "request": request_timer(address)}
            if browser:
                timers["page"] = page_timer(address, browser, closing)
            times: dict[str, list[float]] = {name: [] for name in timers}
            spent = dict.fromkeys(timers, 0.0)
            for round_ in range(rounds + 5):
                for name, timer in timers.items():
                    # Values of a slider's own steps, none twice in a row.
                    before = processor_time()
                    times[name].append(timer(round(((37 * round_) % 199 - 99) / 100, 2)))
                    if round_ >= 5:
                        spent[name] += processor_time() - before
            for name, found in times.items():
                kept = found[5:]
                ratio = statistics.median(a / b for a, b in zip(kept, times["generator"][5:]))
                click.echo(
                    f"{name:10} median {statistics.median(kept):7.1f} ms   "
                    f"90 % {statistics.quantiles(kept, n=10)[-1]:7.1f} ms   "
                    f"least {min(kept):7.1f} ms   × generator {ratio:5.2f}   "
                    f"CPU {1000 * spent[name] / rounds:6.1f} ms"
                )
        finally:
            for close in reversed(closing):
                close()
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
