"""What goes wrong with files of networks."""

from dnnlib.errors import UserError


class SnapshotError(UserError):
    """A file that is no snapshot of ours, or a damaged one; the message names it and the reason."""


class ExportError(UserError):
    """A generator that cannot be written as asked; the message says why and how to mend it."""
