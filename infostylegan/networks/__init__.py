"""Networks: mapping, synthesis, generator, discriminator (trunk, score head, Q head)."""

from infostylegan.networks.discriminator import Discriminator, Judgement
from infostylegan.networks.generator import Generator

__all__ = ["Discriminator", "Generator", "Judgement"]
