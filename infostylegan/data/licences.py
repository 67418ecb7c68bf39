"""What may be done with the data sets that have a name here: a note for whoever is about to share."""

from __future__ import annotations

LICENCES = {
    "eyepacs": "EyePACS: the rules of the Kaggle competition; research, and no passing on of the photographs",
    "celeba": "CelebA: non-commercial research only; no passing on, and no pictures of people identified",
    "mnist": "MNIST: CC BY-SA 3.0, Y. LeCun and C. Cortes",
    "fashion-mnist": "Fashion-MNIST: MIT, Zalando SE",
    "color-mnist": "made from MNIST, so CC BY-SA 3.0, Y. LeCun and C. Cortes",
    "dsprites": "dSprites: Apache-2.0, DeepMind",
    "shapes3d": "3D Shapes: Apache-2.0, DeepMind",
    "idrid": "IDRiD: CC BY 4.0, P. Porwal, S. Pachade, M. Kokare; name them, and say what was changed",
    "fundus": "drawn by this program: no photographs, and no rights of others",
}


def licence_note(name: str) -> str:
    """The note for a data set called `name`, such as "eyepacs512"; for any other, to find out."""
    lower = name.lower().replace("_", "-")
    # The longest first: fashion-mnist is no mnist.
    for known in sorted(LICENCES, key=len, reverse=True):
        if lower.startswith(known):
            return LICENCES[known]
    return "not known here; see where the images come from before passing on them, or what is made of them"
