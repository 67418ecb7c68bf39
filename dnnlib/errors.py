"""The one kind of error that is told as a message, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend. The message says what is wrong, where, and how to mend it."""
