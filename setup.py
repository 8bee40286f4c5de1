"""Packages: all under src, and the configuration, which lies beside it. Everything else stands in setup.cfg."""

from setuptools import find_packages, setup

setup(packages=[*find_packages("src"), "hydra_plugins", "segladder.conf"])  # Hydra's namespace holds no __init__.py
