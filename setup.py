"""The part of the packaging that setup.cfg cannot hold: the man page is made with the package."""

from __future__ import annotations

import os
import sys

from build_manpages import build_manpages, get_build_py_cmd, get_install_cmd
from setuptools import setup

# The man page is made from the parser, which the build finds here.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# The page must not change with the day of the build or the width of the terminal: it is committed,
# and a test compares it. 2026-11-24T00:00:00Z is the date that stands in the page; set it anew
# with each release.
os.environ.setdefault("SOURCE_DATE_EPOCH", "1795478400")
os.environ["COLUMNS"] = "100"

setup(
    cmdclass={
        "build_manpages": build_manpages,
        "build_py": get_build_py_cmd(),
        "install": get_install_cmd(),
    }
)
