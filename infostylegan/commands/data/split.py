"""`data split`: lists of patients for a split that keeps every patient on one side."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("split")
@click.argument("source", metavar="DATA")
@click.option(
    "--holdout", type=float, default=0.1, show_default=True, help="Share of the patients to hold out."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which patients.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write; of DATA.zip, DATA if left out.",
    metavar="STEM",
)
def split_patients(source: str, holdout: float, seed: int, out: Path | None) -> None:
    """Split the patients of DATA, packed with its patients, into STEM.rest.txt and STEM.held.txt.

    Both eyes of a patient stay together. `data eyepacs --keep-patients STEM.held.txt` packs one side.
    """
    import numpy as np

    from dnnlib.files import atomic_write
    from infostylegan.data import open_dataset
    from infostylegan.data.patients import split_by_patient

    dataset = open_dataset(source, labels=False)
    stem = out or Path(source).with_suffix("")
    for side, part in zip(("rest", "held"), split_by_patient(dataset, holdout, seed)):
        assert part.patients is not None
        names = np.unique(part.patients)
        path = stem.with_name(f"{stem.name}.{side}.txt")
        with atomic_write(path, "w") as file:
            file.write("patient\n" + "".join(f"{name}\n" for name in names))
        click.echo(f"{path}: {len(names)} patients, {len(part)} images")
