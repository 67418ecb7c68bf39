"""Train an InfoStyleGAN: `python train.py` on the embedded dataset, `--data` for any other.

The same command again resumes an unfinished run, exactly.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from click.core import ParameterSource

from dnnlib import distributed
from dnnlib.cli import Failure, told
from dnnlib.devices import pick_device
from dnnlib.errors import UserError
from dnnlib.files import append_jsonl, atomic_write
from dnnlib.lock import Taken, exclusive
from dnnlib.log import RunLog
from dnnlib.memory import is_out_of_memory, tune_malloc
from dnnlib.runs import list_runs, next_run_dir
from infostylegan.code_version import code_version
from infostylegan.data import DataError, Dataset, open_dataset
from infostylegan.export import find_snapshot, snapshots_of
from infostylegan.naming import names_in_run
from infostylegan.presets import LARGEST_GUESS, PRESETS, preset_for
from infostylegan.training.loop import Hook, RunResult, RunSettings, train
from infostylegan.training.measure import SPREAD_WARNING
from infostylegan.training.options import LARGEST, OptionError, TrainingOptions
from infostylegan.training.plan import describe_plan
from infostylegan.training.report import information_table

if TYPE_CHECKING:
    from metrics.measures import Request

OPTIONS_FILE = "training_options.json"
MOST_LABELS = 1000  # classes that are believed whatever the number of images
DONE_FILE = "result.jsonl"  # written when a run has come to its end: images, and nats of each code


def table(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A number, or numbers by resolution: `64` or `8:256,32:64`."""
    if value is None:
        return None
    try:
        if ":" not in value:
            return float(value)
        pairs = (part.split(":") for part in value.split(","))
        return {int(resolution): float(number) for resolution, number in pairs}
    except ValueError:
        raise click.BadParameter(
            f"{value!r}: write a number, or numbers by resolution as in 8:256,32:64"
        ) from None


@click.command(context_settings={"show_default": True, "max_content_width": 100})
# Data
@click.option(
    "--data",
    default="fundus",
    metavar="NAME|FOLDER|ZIP",
    help="fundus, dsprites (embedded), mnist, color-mnist, eyepacs, celeba, …, a folder or a zip of images.",
)
@click.option(
    "--resolution", type=int, help="Final size, a power of two.  [default: from the preset or the data]"
)
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Condition D and G on the labels of the data.  [default: from the preset]",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad"]),
    default="crop",
    help="How an image that is not square is made so.",
)
@click.option(
    "--max-bad", type=click.FloatRange(0, 1), default=0.05, help="Share of unreadable images to put up with."
)
# Method
@click.option(
    "--cfg", type=click.Choice(sorted(PRESETS)), help="Settings to start from.  [default: from the data]"
)
@click.option("--beta", type=float, help="Weight of the mutual information (Eq. 4); 0: none.")
@click.option("--beta-uniform", type=float, help="The same for uniform codes alone.  [default: --beta]")
@click.option("--beta-real", type=float, help="Weight of the information that Q reads from real images.")
@click.option(
    "--beta-start", type=float, help="Beta at the first image, rising to --beta at --beta-ramp-kimg."
)
@click.option("--beta-ramp-kimg", type=float, help="Length of that rise.")
@click.option("--codes", help="The codes, as in cat:3,bern:7,unif:10; `none` for none.")
@click.option(
    "--uniform",
    type=click.Choice(["unit", "gaussian", "truncnormal"]),
    help="What Q calls a uniform code; unit is the paper's.",
)
@click.option("--sigma-min", type=float, help="Least scale that Q may state of a uniform code.")
@click.option(
    "--share-codes/--no-share-codes",
    default=None,
    help="Give the fakes of a minibatch-stddev group the same discrete codes.",
)
@click.option(
    "--margin", type=float, help="Nats below a discrete code's ceiling that are certain enough for G."
)
@click.option(
    "--information-clip",
    type=float,
    help="Most that G's gradient from information may be, times the adversarial one; 0: no limit.",
)
@click.option(
    "--trunk-share",
    type=float,
    help="Share of the information's gradient that D's trunk learns from; 1 is the paper's.",
)
@click.option(
    "--views", type=float, help="Strength of the random views through which discrete codes are read; 0: none."
)
@click.option("--styles/--no-styles", default=None, help="Styled generator, or ProGAN's (codes enter once).")
@click.option(
    "--code-input", type=click.Choice(["standard", "plain"]), help="How codes join z'; plain is the paper's."
)
@click.option("--code-scale", type=float, help="Factor on the codes' input.")
# Losses and schedule
@click.option("--gamma", type=float, help="Weight of the R1 penalty.")
@click.option(
    "--r1-reference", type=click.Choice(["final", "native"]), help="Size of image that gamma refers to."
)
@click.option("--r1-interval", type=int, help="R1 every so many steps, as strongly in all.")
@click.option("--kimg", type=float, help="Length of training, in thousands of images.")
@click.option("--start-resolution", type=int, help="Size at which growth starts.")
@click.option("--stable-kimg", callback=table, help="Length of a stable phase: a number or RES:NUMBER,…")
@click.option("--fade-kimg", callback=table, help="Length of a fade: a number or RES:NUMBER,…")
@click.option("--batch", callback=table, help="Images a step: a number or RES:NUMBER,…")
@click.option("--lr", callback=table, help="Adam's rate: a number or RES:NUMBER,…")
@click.option("--lr-decay-kimg", type=float, help="Length of the rate's fall to 0 at the end of the run.")
@click.option("--micro-batch", type=int, help="Images of one backward pass, for machines with little memory.")
@click.option("--ema-kimg", type=float, help="Half-life of G's moving average.")
# Networks
@click.option("--latent-dim", type=int, help="Width of (z', c) and of w.")
@click.option("--fmap-base", type=int, help="Feature maps: min(base / 2^stage, max).")
@click.option("--fmap-max", type=int, help="The most feature maps of a layer.")
@click.option("--mapping-layers", type=int, help="Depth of the mapping network.")
@click.option("--mapping-lr", type=float, help="Learning rate multiplier of the mapping network.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Type in which convolutions are computed; auto: bf16 where the machine has instructions for it.",
)
# Running
@click.option(
    "--outdir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    help="Where run folders are made.",
)
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
@click.option(
    "--tick",
    type=click.FloatRange(0, min_open=True),
    help="Thousands of images between status lines.  [default: kimg / 40]",
)
@click.option("--snap", type=click.IntRange(1), default=5, help="Ticks between snapshots.")
@click.option(
    "--metrics", metavar="LIST", help="Measured at each snapshot, as in fid5k,mig; one estimate of fid each."
)
@click.option("--extractor", default="auto", help="Network of features for --metrics: auto, or a name.")
@click.option(
    "--inception-weights",
    type=click.Path(path_type=Path),
    help="File of Inception's weights, if not fetched.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option("--device", help="cpu or cuda.  [default: cuda if present]")
@click.option(
    "--new", "fresh", is_flag=True, help="Start a new run even if this command has an unfinished one."
)
@click.option(
    "--resume", "resume", type=click.Path(path_type=Path, file_okay=False), help="Go on in this run folder."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.pass_context
def main(ctx: click.Context, **args: Any) -> None:
    """Train an InfoStyleGAN. The same command again resumes an unfinished run, exactly."""
    if args["threads"]:
        torch.set_num_threads(args["threads"])
    tune_malloc()
    torch.backends.cudnn.deterministic = True
    try:
        distributed.init(args["device"] and args["device"].split(":")[0])
        run(args, {name for name in args if ctx.get_parameter_source(name) != ParameterSource.DEFAULT})
    except Taken as error:
        raise Failure(f"{error}; this run is being trained already (--new starts another)") from None
    except (UserError, OSError) as error:
        raise Failure(told(error)) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise Failure(
            "out of memory: --micro-batch, --precision bf16, or smaller networks or images take less "
            "(--dry-run estimates how much)"
        ) from None
    finally:
        distributed.shutdown()


def run(args: dict[str, Any], given: set[str]) -> None:
    """Options -> data -> plan -> run folder -> training -> the closing words."""
    device = pick_device(args["device"])
    requests = metric_requests(args["metrics"])
    if args["dry_run"]:
        click.echo(describe_plan(*plan_without_data(args, given), device))
        return
    code_version()  # before anybody can check out another
    options, dataset = prepare(args, given)
    found = find_folder(args, options)
    if found is not None and (snapshot := finished(found)):
        click.echo(f"This run has finished: {snapshot}. Use --new to run it again.")
        return
    main_process = distributed.is_main()
    notes: list[str] = []  # of what comes before there is a log
    hooks = metric_hooks(args, requests, dataset, device, notes.append) if main_process else ()
    folder = found_or_new(found, args, options)
    with (
        exclusive(folder / ".lock", wait=False) if main_process else nullcontext(),
        RunLog(folder / "log.txt" if main_process else None, quiet=not main_process) as log,
    ):
        log.line(f"Run folder: {folder}")
        log.line(f"Data: {describe_data(dataset)}, digest {dataset.digest[:12]}")
        for name, reason in dataset.skipped:
            log.warn(f"left out: {name}: {reason}")
        for note in notes:
            log.warn(note)
        if (last := options.growth().phases()[-1].resolution) < options.resolution:
            log.warn(f"--kimg {options.kimg:g} ends at {last}², before {options.resolution}² is reached")
        tick = args["tick"] or options.kimg / 40
        settings = RunSettings(folder, device, tick, args["snap"])
        result = train(options, settings, dataset, log, hooks)
        if not result.finished:
            log.line(f"Stopped at {result.images / 1000:.1f} kimg; the same command goes on from here.")
            sys.exit(130)
        if distributed.is_main():
            log.line(closing_words(folder, options, result))
            record = {"images": result.images, "information": result.information}
            append_jsonl(folder / DONE_FILE, {**record, "spread": result.spread and vars(result.spread)})


def metric_requests(names: str | None) -> list[Request]:
    """What --metrics asks for: a slip in it is told before the data are read and a folder is made."""
    if not names:
        return []
    from metrics.measures import parse  # here, because scikit-learn takes a second to load

    return parse(names)


def metric_hooks(
    args: dict[str, Any], requests: list[Request], dataset: Dataset, device: torch.device,
    say: Callable[[str], None],
) -> tuple[Hook, ...]:  # fmt: skip
    """What is measured at each snapshot: an extractor that can't be had is told before a folder is made."""
    if not requests:
        return ()
    from metrics.hook import make_hook

    return (
        make_hook(
            requests, dataset, extractor=args["extractor"], weights=args["inception_weights"],
            device=device, say=say,
        ),
    )  # fmt: skip


def describe_data(dataset: Dataset) -> str:
    return f"{dataset.name}, {len(dataset)} images at {dataset.resolution}²"


def closing_words(folder: Path, options: TrainingOptions, result: RunResult) -> str:
    """The table of codes, the spread beside it, and where the results lie."""
    lines = []
    if result.information["G_ema"] and result.spread is not None:
        table = information_table(result.information, options.spec().ceilings(), names_in_run(folder))
        lines = ["", "Information of each code, on fresh samples:", table, ""]
        lines.append(
            f"Spread, over the data's: {result.spread.overall:.2f}, and {result.spread.within:.2f} with the "
            "codes held fixed" + (": z' has little say" if result.spread.within < SPREAD_WARNING else "")
        )
        lines.append(f"What each code does: {folder}/traverse-<code>.png")
    lines.append(f"Generator: {find_snapshot(folder)}")
    return "\n".join(lines)


def pick_precision(name: str, device: torch.device) -> str:
    """bf16 for `auto` where it is computed natively; elsewhere it is emulated, and slower than fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        native = "avx512_bf16" in flags or "amx_bf16" in flags
    return "bf16" if native else "fp32"


def preset_options(args: dict[str, Any], given: set[str], name: str) -> dict[str, Any]:
    """The preset's settings, overruled by what was given on the command line."""
    fields = {field.name for field in dataclasses.fields(TrainingOptions)}
    values = dict(PRESETS[args["cfg"] or preset_for(name)])
    if "beta" in given:  # and --beta-uniform defaults to it
        values["beta_uniform"] = None
        values["beta_start"] = None
        if args["beta"] == 0:  # a plain GAN: what else a preset does for its codes goes, too
            values.update(beta_real=0.0, share_codes=False)
    values.update({key: args[key] for key in given if (key in fields and key != "data") or key == "labels"})
    values["seed"] = args["seed"]
    values["precision"] = pick_precision(values.get("precision", "fp32"), pick_device(args["device"]))
    return values


def prepare(args: dict[str, Any], given: set[str]) -> tuple[TrainingOptions, Dataset]:
    """Open the data, and settle every option."""
    # A zip or folder that carries the name of a set starts from that set's preset, too.
    name = Path(args["data"]).stem
    values = preset_options(args, given, name)
    preset = args["cfg"] or preset_for(name)
    # What is wrong whatever the data are is said before they are read, which can take an hour.
    size = LARGEST if values.get("resolution") is None else values["resolution"]
    others = {key: value for key, value in values.items() if key not in ("labels", "resolution")}
    TrainingOptions(data=name, data_digest="", resolution=size, **others)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\rReading the data: {done}/{total}", nl=done == total, err=True)

    dataset = open_dataset(
        args["data"],
        resolution=values.get("resolution"),
        fit=args["fit"],
        max_bad=args["max_bad"],
        largest=LARGEST_GUESS.get(preset, 512),
        labels=values.get("labels", False),
        progress=progress,
    )
    values = preset_options(args, given, dataset.name)
    use_labels = values.pop("labels", False)
    if use_labels and dataset.labels is None:
        raise OptionError(
            f"--labels: {args['data']} has none (add dataset.json or labels.csv), or use --no-labels"
        )
    values["resolution"] = dataset.resolution
    labels = dataset.labels if use_labels else None
    values["label_count"] = 0 if labels is None else count_labels(args["data"], labels)
    options = TrainingOptions(
        data=dataset.name, data_digest=dataset.digest, channels=dataset.channels, **values
    )
    check_batches(options)
    return options, dataset


def count_labels(data: str, labels: np.ndarray) -> int:
    """One more than the largest class number. Raises OptionError where that cannot be how many there are."""
    largest = int(labels.max())
    if largest >= max(MOST_LABELS, len(labels)):
        raise OptionError(
            f"--labels: {data} has a class number {largest:,} in {len(labels):,} images; number the classes "
            "0, 1, 2, … without gaps, or use --no-labels"
        )
    return largest + 1


def check_batches(options: TrainingOptions) -> None:
    world = distributed.world_size()
    for resolution, batch in options.growth().batch.items():
        if batch % world:
            raise OptionError(f"--batch {batch} at {resolution}²: not divisible by the {world} processes")


def plan_without_data(args: dict[str, Any], given: set[str]) -> tuple[TrainingOptions, str]:
    """Options for --dry-run; data that are not here are described by their preset."""
    try:
        options, dataset = prepare(args, given)
        return options, describe_data(dataset)
    except DataError:
        if args["data"] not in ("eyepacs", "celeba"):
            raise
    values = preset_options(args, given, args["data"])
    labels = 5 if values.pop("labels", False) else 0
    options = TrainingOptions(data=args["data"], data_digest="", label_count=labels, **values)
    return options, f"{args['data']}: not on this machine; run without --dry-run to see how to get it"


def find_folder(args: dict[str, Any], options: TrainingOptions) -> Path | None:
    """The folder of this run's unfinished or finished part."""
    if args["resume"] is not None:
        return check_same(args["resume"], options)
    return None if args["fresh"] else find_run(args["outdir"], options)


def found_or_new(found: Path | None, args: dict[str, Any], options: TrainingOptions) -> Path:
    """The folder of this run, the same for every process."""
    if found is None and distributed.is_main():
        try:
            found = next_run_dir(args["outdir"], options.describe())
        except OSError as error:
            raise OptionError(
                f"--outdir {args['outdir']}: no run folder can be made there ({error.strerror}); choose a "
                "folder that can be written"
            ) from None
        with atomic_write(found / OPTIONS_FILE, "w") as file:
            started = {"command": sys.argv, "folder": str(Path.cwd()), **code_version()}
            file.write(options.to_json({**started, **{k: args[k] for k in ("data", "fit", "max_bad")}}))
    distributed.barrier()
    # The other processes find what the first has made.
    found = found or find_run(args["outdir"], options)
    if found is None:
        raise OptionError(f"--outdir {args['outdir']}: not the same folder for every process")
    return found


def find_run(outdir: Path, options: TrainingOptions) -> Path | None:
    """The latest run folder with just these options."""
    return next((folder for folder in reversed(list_runs(outdir)) if read_options(folder) == options), None)


def finished(folder: Path) -> Path | None:
    """The last snapshot of a run that has come to its end."""
    snapshots = snapshots_of(folder)
    done = (folder / DONE_FILE).exists()
    return snapshots[-1] if done and snapshots else None


def read_options(folder: Path) -> TrainingOptions | None:
    try:
        return TrainingOptions.from_json((folder / OPTIONS_FILE).read_text())
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def check_same(folder: Path, options: TrainingOptions) -> Path:
    """Raise OptionError unless `folder` holds a run of just these options."""
    found = read_options(folder)
    if found is None:
        raise OptionError(f"--resume {folder}: no run folder (it has no sound {OPTIONS_FILE})")
    if found != options:
        different = "; ".join(found.differences(options)[:6])
        raise OptionError(
            f"--resume {folder}: it holds a run of another configuration (there / here): {different}"
        )
    return folder


if __name__ == "__main__":
    main()
