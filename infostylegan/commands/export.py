"""`python -m infostylegan export`: the generator of a snapshot in a file for somewhere else."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.common import snapshot_argument

# Format -> what is added to the snapshot's name.
SUFFIXES = {"safetensors": "", "pkl": "-generator.pkl", "onnx": ".onnx", "pt2": ".pt2", "web": "-web"}

MARKS = ("model.safetensors", "generator.onnx")  # what tells a folder that may be replaced


@click.command()
@snapshot_argument
@click.option(
    "--format", "kind", type=click.Choice(list(SUFFIXES)), default="safetensors", show_default=True,
    help="safetensors: a folder with weights, configuration and model card; pkl: a pickle that is read "
    "without executing anything; onnx and pt2 (torch.export): for other programs; web: a folder with a page "
    "of sliders. onnx and web need the extra export.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), help="File or folder.  [default: beside the snapshot]"
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option(
    "--truncation", type=click.Choice(["codes", "global"]), default="codes", show_default=True,
    help="What psi pulls to in onnx, pt2 and web.",
)  # fmt: skip
@click.option(
    "--runtime", type=click.Path(path_type=Path), envvar="INFOSTYLEGAN_ORT_WEB", show_envvar=True,
    help="web: ONNX Runtime Web, the archive of `npm pack onnxruntime-web` or a folder of it.  [default: "
    "fetched once]",
)  # fmt: skip
@click.option("--runtime-url", help="web: where else to fetch that archive from; its digest is checked.")
def export(
    snapshot: Path, kind: str, out: Path | None, overwrite: bool, truncation: str, runtime: Path | None,
    runtime_url: str | None,
) -> None:  # fmt: skip
    """Write the generator of SNAPSHOT (the moving average) for use elsewhere."""
    from dnnlib.cli import Failure
    from infostylegan.export import load_snapshot, save_folder, save_generator
    from infostylegan.export.folders import new_folder
    from infostylegan.export.graph import save_onnx, save_program
    from infostylegan.export.tensors import NETWORKS
    from infostylegan.export.web import URL, save_web

    content = load_snapshot(snapshot)
    stem = snapshot.resolve().stem if snapshot.is_file() else snapshot.resolve().name
    if out is None:
        out = snapshot.resolve().parent / f"{stem}{SUFFIXES[kind]}"
        if out == snapshot.resolve():
            raise Failure(f"{snapshot} is such a folder already: say with --out where to write another")
    if out.exists() and out.resolve() == snapshot.resolve():
        raise Failure(f"--out {out} is the snapshot itself")
    if out.exists() and not overwrite:
        raise Failure(f"{out} is there already: give --overwrite, or another --out")
    if kind in ("safetensors", "web"):
        with new_folder(out, marks=MARKS) as folder:
            if kind == "safetensors":
                save_folder(folder, content)
            else:
                save_web(folder, content, runtime=runtime, url=runtime_url or URL, truncation=truncation)
    else:
        if out.is_dir():
            raise Failure(f"{out} is a folder, and {kind} makes a file: give another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind == "pkl":
            plain = {key: value for key, value in content.items() if key not in NETWORKS}
            save_generator(out, content["G_ema"], **plain)
        elif kind == "onnx":
            save_onnx(out, content, truncation)
        else:
            save_program(out, content, truncation)
    files = [f for f in out.rglob("*") if f.is_file()] if out.is_dir() else [out]
    size = sum(f.stat().st_size for f in files) / 2**20
    click.echo(f"{out}: {kind}, {size:.1f} MiB")
    if kind == "web":
        click.echo(
            f"to see it: python -m http.server 8000 --bind 127.0.0.1 -d {out}, and http://127.0.0.1:8000"
        )
