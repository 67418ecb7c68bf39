"""The one error that data raise on account of what a user gave."""

from __future__ import annotations

from dnnlib.errors import UserError


class DataError(UserError):
    """Something is wrong with the data given: the message says what, where, and how to mend it.

    Programs show the message alone, without a traceback.
    """
