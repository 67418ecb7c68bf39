"""Pictures that go with results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from infostylegan.render.grids import labelled_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str,
    top: float | None = None,
) -> Figure:
    """values [rows, columns] from 0 upwards, with each number written in its cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = values.shape
    # Names lie slanted above the columns and need room of their own.
    figure = Figure(figsize=(3.2 + 0.62 * width, 2.2 + 0.36 * height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    high = top if top is not None else max(float(np.nanmax(values)), 1e-9)
    picture = axes.imshow(values, cmap="viridis", vmin=0.0, vmax=high, aspect="auto")
    axes.set_xticks(range(width), columns, rotation=40, ha="left", rotation_mode="anchor", fontsize=9)
    axes.xaxis.tick_top()
    axes.set_yticks(range(height), rows, fontsize=9)
    axes.tick_params(length=0)
    for (i, j), value in np.ndenumerate(values):
        ink = "white" if value < 0.6 * high else "black"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    figure.colorbar(picture, ax=axes, label=label, shrink=0.9)
    figure.suptitle(title, fontsize=11)
    return figure


def neighbour_sheet(
    queries: np.ndarray, neighbours: Sequence[np.ndarray], labels: Sequence[str], title: str
) -> Image.Image:
    """A row a generated image: itself, then its nearest real images. uint8 [n, H, W, C], n × [k, H, W, C].

    Generated images of a network still growing are enlarged to the real ones' size.
    """
    k = len(neighbours[0])
    factor = neighbours[0].shape[1] // queries.shape[1]
    queries = queries.repeat(factor, axis=1).repeat(factor, axis=2)
    cells = np.concatenate([np.concatenate([q[None], near]) for q, near in zip(queries, neighbours)])
    columns = ["generated", *(f"real {i + 1}" for i in range(k))]
    return labelled_grid(
        cells, k + 1, row_labels=list(labels), column_labels=columns, title=title, min_cell=96
    )
