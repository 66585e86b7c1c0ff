"""All is in setup.cfg; this refuses a Python that cannot work before anything is downloaded."""

import sys

from setuptools import setup

OLDEST, NEWEST = (3, 11), (3, 14)  # of the releases that the tested set has wheels for

if not OLDEST <= sys.version_info[:2] <= NEWEST:
    this = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"RecBole-GR needs Python 3.11, 3.12, 3.13 or 3.14; this is Python {this}. Make the "
        "environment with one of these, such as: python3.12 -m venv venv"
    )

setup()
