"""The commands of `python -m infostylegan`, one module each; heavy imports happen when a command runs."""
