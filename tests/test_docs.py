"""What the documentation says of the code, checked against the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from infostylegan.presets import PRESETS
from infostylegan.training.options import TrainingOptions

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = {field.name: field.default for field in fields(TrainingOptions)}
SHOWN = (
    "resolution", "labels", "codes", "uniform", "sigma_min", "code_input", "beta", "beta_start",
    "beta_ramp_kimg", "beta_uniform", "beta_real", "views", "margin", "information_clip",
    "trunk_share", "share_codes", "gamma", "r1_reference", "r1_interval", "kimg",
    "start_resolution", "stable_kimg", "fade_kimg", "batch", "lr", "lr_decay_kimg", "latent_dim",
    "mapping_layers", "mapping_lr", "fmap_base", "fmap_max", "ema_kimg", "ema_rampup", "precision",
)  # fmt: skip


def shown(name: str, value: Any) -> str:
    if name == "resolution" and value is None:
        return "the data's"
    if name == "labels":
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{resolution}: {number:g}" for resolution, number in value.items())
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return {True: "yes", False: "no", None: "–"}.get(value, value)  # type: ignore[arg-type]
    return f"{value:,g}" if value < 1000 else f"{value:,.0f}"


def preset_table() -> str:
    """The table of docs/training.md: one row an option, one column a preset."""
    rows = ["| | " + " | ".join(f"`{name}`" for name in PRESETS) + " |", "|---" * (len(PRESETS) + 1) + "|"]
    for name in SHOWN:
        values = [preset.get(name, DEFAULTS.get(name)) for preset in PRESETS.values()]
        if name == "resolution":
            values = [preset.get(name) for preset in PRESETS.values()]
        rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(shown(name, v) for v in values) + " |")
    return "\n".join(rows)


def test_the_table_of_presets_is_that_of_the_code() -> None:
    assert preset_table() in (ROOT / "docs" / "training.md").read_text(), "expected:\n" + preset_table()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_every_file_that_a_page_links_to_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
