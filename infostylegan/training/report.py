"""What a run leaves behind: status lines, stats.jsonl, TensorBoard events, pictures, snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dnnlib.files import DamagedFile, append_jsonl, atomic_write, read_jsonl, truncate_jsonl
from dnnlib.log import RunLog, format_bytes, format_time
from infostylegan.codes import shown_name
from infostylegan.export import save_snapshot
from infostylegan.networks.layers import nearest_upsample
from infostylegan.render.grids import image_grid, to_uint8
from infostylegan.render.plots import plot_information
from infostylegan.training.measure import SPREAD_WARNING
from infostylegan.training.state import TrainingState

STATS = "stats.jsonl"
SCALARS = (
    "loss_g", "loss_d", "r1", "score_real", "score_fake", "spread", "spread_overall", "fade", "resolution",
    "batch", "lr", "gamma", "sec_per_kimg", "data_wait", "memory_bytes", "skipped",
)  # fmt: skip


class Reporter:
    """Writes one run's record. On resume, whatever was written after the checkpoint is taken back."""

    def __init__(self, folder: Path, log: RunLog, ceilings: dict[str, float], images: int) -> None:
        self.folder, self.log, self.ceilings = folder, log, ceilings
        self.collapsed = False  # whether the last tick was; each collapse is told once
        try:
            truncate_jsonl(folder / STATS, lambda record: record.get("images", 0) <= images)
        except DamagedFile as error:
            log.warn(f"{error}; it is set aside and begun anew")
            (folder / STATS).rename(folder / f"{STATS}.damaged")
        self.events = SummaryWriter(str(folder), purge_step=images + 1)

    def close(self) -> None:
        self.events.close()

    def tick(self, record: dict[str, Any]) -> None:
        """One status line, one line of stats.jsonl, TensorBoard scalars, and the warning of a collapse."""
        append_jsonl(self.folder / STATS, record)
        nats: dict[str, float] = record["information"]
        self.log.line(status_line(record, self.ceilings))
        collapsed = bool(nats) and record["spread"] is not None and record["spread"] < SPREAD_WARNING
        if collapsed and not self.collapsed:
            self.log.warn(
                f"the spread within codes is {record['spread']:.2f} of the data's: z' hardly changes the "
                "image, and high information is no success then; try a lower --beta"
            )
        self.collapsed = collapsed
        images = record["images"]
        for name in SCALARS:
            if record[name] is not None:
                self.events.add_scalar(f"training/{name}", record[name], images)
        for name, value in nats.items():
            self.events.add_scalar(f"information/{name}", value, images)
            if self.ceilings[name] > 0:
                self.events.add_scalar(f"information_share/{name}", value / self.ceilings[name], images)
        if nats:
            self.events.add_scalar("information/total", sum(nats.values()), images)
        self.events.flush()

    def pictures(self, name: str, images: Tensor, resolution: int) -> None:
        """Write a grid of images to <name>.png, at the run's final resolution whatever their own."""
        images = nearest_upsample(images.float().cpu(), resolution // images.shape[-1])
        columns = max(1, round(len(images) ** 0.5 * 1.3))
        with atomic_write(self.folder / f"{name}.png") as file:
            image_grid(images[: len(images) // columns * columns], columns).save(file, format="PNG")

    def picture_event(self, images: Tensor, step: int) -> None:
        shown = to_uint8(images[:16].float().cpu())
        self.events.add_images("fakes", shown, step, dataformats="NHWC")

    def information_plot(self) -> None:
        records = [record for record in read_jsonl(self.folder / STATS) if record.get("information")]
        if records:
            plot_information(records, self.ceilings, self.folder / "information.png")

    def snapshot(self, state: TrainingState, provenance: dict[str, Any]) -> Path:
        """network-snapshot-<kimg>.pkl: G, D, G_ema and where they come from."""
        path = self.folder / f"network-snapshot-{state.images // 1000:06d}.pkl"
        save_snapshot(path, {"G": state.G, "D": state.D, "G_ema": state.G_ema, **provenance})
        return path


def status_line(record: dict[str, Any], ceilings: dict[str, float]) -> str:
    """`tick 3  kimg 60.0  16² fade 0.40  …  cat0 1.92/2.30 …  spread 0.81`."""
    fade = f" fade {record['fade']:.2f}" if record["fade"] < 1 else ""
    nats = " ".join(
        f"{name} {value:.2f}/{ceilings[name]:.2f}" for name, value in record["information"].items()
    )
    parts = [
        f"tick {record['tick']:<3d}",
        f"kimg {record['kimg']:<7.1f}",
        f"{record['resolution']}²{fade}",
        f"{record['sec_per_kimg']:.2f} s/kimg",
        f"data {record['data_wait']:.0%}",
        format_bytes(record["memory_bytes"]),
        f"{format_time(record['seconds'])}, left {format_time(record['seconds_left'])}",
        *([f"nats {nats}"] if nats else []),
        *([f"spread {record['spread']:.2f}"] if record["spread"] is not None else []),
        *([f"skipped {record['skipped']}"] if record["skipped"] else []),
    ]
    return "  ".join(parts)


def information_table(
    information: dict[str, dict[str, float]], ceilings: dict[str, float], names: dict[str, str]
) -> str:
    """The closing table: each code, its information (of the averaged generator, and of the one it is the
    average of), its ceiling and the share of it that the averaged generator reaches."""
    shown = {code: shown_name(code, names) for code in information["G_ema"]}
    width = max(20, *(len(label) + 2 for label in shown.values())) if shown else 20
    lines = [f"{'code':<{width}}{'nats':>8}{'ceiling':>9}{'share':>7}{'without averaging':>20}"]
    for code, value in information["G_ema"].items():
        ceiling = ceilings[code]
        share = f"{value / ceiling:7.0%}" if ceiling > 0 else f"{'–':>7}"
        other = information["G"][code]
        lines.append(f"{shown[code]:<{width}}{value:8.3f}{ceiling:9.3f}{share}{other:20.3f}")
    return "\n".join(lines)
