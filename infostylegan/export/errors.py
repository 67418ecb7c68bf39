"""What goes wrong with files of networks."""


class SnapshotError(Exception):
    """A file that is no snapshot of ours, or a damaged one; the message names it and the reason."""


class ExportError(Exception):
    """A generator that cannot be written as asked; the message says why and how to mend it."""
