"""The commands of `python -m metrics`, one module each; heavy imports happen when a command runs."""
