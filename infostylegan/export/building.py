"""A network from its configuration and weights, which may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from infostylegan.networks import Discriminator, Generator

Network = TypeVar("Network", bound=Generator | Discriminator)
DEEPEST = 1000  # layers of a mapping network; each is an object, even where it takes no memory


def build_network(cls: type[Network], config: dict[str, Any], weights: Mapping[str, Tensor]) -> Network:
    """The network in eval mode, without gradients. Raises ValueError where configuration and weights differ.

    The configuration is first tried without memory, so that one which asks for more than its weights hold is
    refused before any is taken.
    """
    if not 0 <= config.get("mapping_layers", 0) <= DEEPEST:
        raise ValueError(f"a mapping network of {config['mapping_layers']} layers")
    with torch.device("meta"):
        plan = cls.from_config(config).state_dict()
    wanted: dict[str, torch.Size] = {name: value.shape for name, value in plan.items()}
    found: dict[str, torch.Size] = {name: value.shape for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{name} is {_told(found.get(name))} where the configuration has {_told(wanted.get(name))}"
            )
    network = cast(Network, cls.from_config(config))
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    return network


def _told(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(list(shape))
