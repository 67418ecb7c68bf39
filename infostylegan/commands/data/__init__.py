"""`python -m infostylegan data`: pack images for training, or look at what a data set holds.

A module for each group of commands, each a line below; heavy imports happen when a command runs.
"""

from __future__ import annotations

import click

from infostylegan.commands.data import check, disentanglement, eyes, faces, look, pack, split


@click.group()
def data() -> None:
    """Pack images for training, or look at what a data set holds."""


data.add_command(pack.pack_folder)
data.add_command(pack.pack_hf_imagefolder)
data.add_command(pack.pack_mnist)
data.add_command(pack.pack_fashion_mnist)
data.add_command(pack.pack_drawn_fundus)
data.add_command(disentanglement.pack_color_mnist)
data.add_command(disentanglement.pack_dsprites)
data.add_command(disentanglement.pack_shapes3d)
data.add_command(eyes.pack_eyepacs)
data.add_command(faces.pack_celeba)
data.add_command(look.show_info)
data.add_command(check.inspect)
data.add_command(check.verify)
data.add_command(split.split_patients)
