"""`python -m infostylegan walk`: a film of a walk through the latent space."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.common import image_options, open_generator, refusals, snapshot_argument


@click.command()
@snapshot_argument
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("walk.webp"), show_default=True,
    help="The film: .webp, .mp4 (needs the extra video) or .gif.",
)  # fmt: skip
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Length of the film.")
@click.option("--fps", type=float, default=25.0, show_default=True, help="Frames a second.")
@click.option(
    "--size", type=int, help="Pixels a side of a tile.  [default: its own; 256 for a film at least]"
)
@click.option("--samples", type=int, default=1, show_default=True, help="Tiles, each on a way of its own.")
@click.option("--columns", type=int, help="Tiles side by side.  [default: about as many as rows]")
@click.option("--keys", type=int, help="Images that each tile passes; 1 holds z'.  [default: one in 2 s]")
@click.option("--seeds", help="These images as keys, tile after tile, such as 3,17,42.  [default: 0, 1, …]")
@click.option(
    "--codes", default="", metavar="MOTIONS",
    help="For each code sweep, hold, fade or a value: unif3=sweep,cat0=fade,bern1=1; all=sweep for all.",
)  # fmt: skip
@click.option(
    "--rest", type=click.Choice(["hold", "fade", "sweep"]),
    help="Motion of the codes not named.  [default: hold; fade where none is named]",
)  # fmt: skip
@click.option("--in-turn", is_flag=True, help="Sweep codes one after the other, not all at once.")
@click.option("--cycles", type=int, default=1, show_default=True, help="Sweeps of each code.")
@click.option("--easing", type=click.Choice(["smooth", "linear"]), default="smooth", show_default=True)
@click.option("--loop/--no-loop", default=True, help="Lead back to the first frame.  [default: loop]")
@image_options
@click.option("--quality", type=click.IntRange(0, 100), default=85, show_default=True, help="WebP and MP4.")
@click.option("--codec", type=click.Choice(["h264", "av1"]), default="h264", show_default=True, help="MP4.")
def walk(
    snapshot: Path, out: Path, seconds: float, fps: float, size: int | None, samples: int,
    columns: int | None, keys: int | None, seeds: str | None, codes: str, rest: str | None, in_turn: bool,
    cycles: int, easing: str, loop: bool, psi: float, truncation: str,
    label: int | None, batch: int, quality: int, codec: str,
) -> None:  # fmt: skip
    """Film a walk through the latent space of SNAPSHOT.

    z' goes from key to key on great circles. Codes are swept through their values, held, or cross-faded from
    key to key. Each key is the image that `generate` makes of its seed.
    """
    import time

    from tqdm import tqdm

    from infostylegan.render.animation import save_animation
    from infostylegan.render.latents import parse_seeds, parse_settings
    from infostylegan.render.walk import MOTIONS, WalkSpec, walk_frames

    G, names = open_generator(snapshot, psi)
    with refusals():
        every, others = "", []
        for part in codes.split(","):
            name, _, motion = part.partition("=")
            if name.strip() == "all":
                every = motion.strip()
            else:
                others.append(part)
        if every and every not in MOTIONS:
            raise ValueError(f"codes {codes!r}: all={every} is none of {', '.join(MOTIONS)}")
        spec = WalkSpec(
            seconds=seconds, fps=fps, samples=samples, keys=keys,
            seeds=None if seeds is None else tuple(parse_seeds(seeds)),
            codes=parse_settings(",".join(others), G.codes, names, words=MOTIONS),
            rest=every or rest, in_turn=in_turn, cycles=cycles, label=label, psi=psi, truncation=truncation,
            easing=easing, loop=loop, size=size, columns=columns,
        )  # fmt: skip
        frames = walk_frames(G, spec, names=names, batch=batch)
        out.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with tqdm(total=spec.count, unit="frame", disable=None, leave=False) as bar:
            count = save_animation(
                frames,
                out,
                fps=fps,
                loop=loop,
                quality=quality,
                codec=codec,
                progress=lambda n: bar.update(1),
            )
    took = time.perf_counter() - started
    height, width = frames.shape
    click.echo(
        f"{out}: {count} frames of {width}x{height}, {count / fps:.1f} s, "
        f"{out.stat().st_size / 2**20:.1f} MiB; made at {count / took:.1f} frames a second"
    )
