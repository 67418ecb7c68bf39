"""`python -m metrics score FILE.npz`: score codes and factors of any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Failure

if TYPE_CHECKING:
    import numpy as np

    from metrics.tables import CodeTable

METRICS = ("mig_locatello", "betavae", "factorvae", "dci", "modularity", "explicitness", "sap")


@click.command(context_settings={"show_default": True, "max_content_width": 100})
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("metrics", default=",".join(METRICS))
@click.option("--seed", type=int, default=0, help="Of everything that is drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def score(file: Path, metrics: str, seed: int, as_json: bool) -> None:
    """Score FILE, an .npz of codes and factors, with METRICS, separated by commas.

    \b
    It holds
      codes         numbers [N, L], one column a code
      factors       [N, K]: numbers or words; or instead one array [N] named factor_NAME for each factor
      factor_names  [K], if factors is one array and they have names
      categorical   columns of codes that hold the index of a category, if any
    """
    import json

    codes, factors = read_scores(file)
    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in METRICS]:
        raise Failure(
            f"metric {unknown[0]!r}: there is none of that name for arrays; there are {', '.join(METRICS)}"
        )
    results: dict[str, float] = {}
    for name in wanted:
        results.update(_score(name, codes, factors, seed))
    if as_json:
        click.echo(json.dumps({"file": str(file), "samples": len(codes), "seed": seed, "results": results}))
        return
    kinds = f"{codes.count} codes" + (
        f", {len(codes.categorical)} of them categorical" if codes.categorical else ""
    )
    click.echo(f"{file}: {len(codes)} samples, {kinds}, {len(factors)} factors ({', '.join(factors)})")
    width = max(map(len, results))
    for name, value in results.items():
        click.echo(f"{name:<{width}}  {value:.4f}")


def read_scores(file: Path) -> tuple[CodeTable, dict[str, np.ndarray]]:
    """Codes and named factors of an .npz. Raises MetricError for what is missing or cannot be read."""
    import zipfile

    import numpy as np

    from metrics.errors import MetricError
    from metrics.tables import read_codes

    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise MetricError(f"{file}: no such file") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise MetricError(f"{file}: cannot be read as an .npz of plain arrays ({error})") from None
    if "codes" not in arrays:
        raise MetricError(f"{file}: holds no array 'codes'; it holds {', '.join(arrays) or 'nothing'}")
    named = {name[len("factor_") :]: a for name, a in arrays.items() if name.startswith("factor_")}
    names = named.pop("names", None)
    if "factors" in arrays:
        table = arrays["factors"]
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2 or (names is not None and len(names) != table.shape[1]):
            raise MetricError(
                f"{file}: factors must be [N, K], with K names if there are any; got {table.shape}"
            )
        called = [f"factor{k}" for k in range(table.shape[1])] if names is None else [str(n) for n in names]
        named = {**dict(zip(called, table.T)), **named}
    if not named:
        raise MetricError(f"{file}: holds no factors: neither 'factors' nor any 'factor_NAME'")
    categorical = [int(i) for i in np.atleast_1d(arrays.get("categorical", []))]
    try:
        return read_codes(arrays["codes"], categorical), named
    except (TypeError, ValueError) as error:
        raise MetricError(f"{file}: {error}") from None


def _score(name: str, codes: CodeTable, factors: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    import metrics as m

    functions: dict[str, Callable[..., Any]] = {
        "mig_locatello": m.mig_locatello,
        "betavae": m.betavae_score,
        "factorvae": m.factorvae_score,
        "dci": m.dci,
        "modularity": m.modularity,
        "explicitness": m.explicitness,
        "sap": m.sap,
    }
    found = functions[name](codes.values, factors, categorical=codes.categorical, seed=seed)
    if isinstance(found, m.DCI):
        return {
            "dci_disentanglement": found.disentanglement,
            "dci_completeness": found.completeness,
            "dci_informativeness": found.informativeness,
        }
    return {name: found.value}
