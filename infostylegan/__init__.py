"""InfoStyleGAN: a style-based generator that discovers its own semantic controls.

from infostylegan import CodeSpec, Generator, Discriminator, load_generator, save_generator
"""

from infostylegan.codes import CodeError, CodeSpec
from infostylegan.export import SnapshotError, load_generator, save_generator
from infostylegan.networks import Discriminator, Generator, Judgement

__version__ = "0.1.0"
__all__ = [
    "CodeError",
    "CodeSpec",
    "Discriminator",
    "Generator",
    "Judgement",
    "SnapshotError",
    "load_generator",
    "save_generator",
]
