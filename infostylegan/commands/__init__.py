"""The commands of `python -m infostylegan`, a module each; heavy imports happen when a command runs."""
