"""Packaging entry point; all metadata is in pyproject.toml. Must never import torch."""

from setuptools import setup

setup()
