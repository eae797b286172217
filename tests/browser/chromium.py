"""The browser of these tests: Debian's Chromium, without a window."""

import shutil

import pytest

PATH = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000
"""Milliseconds that a condition in the browser may take."""

MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(PATH is None, reason="no chromium on the PATH: apt-get install chromium"),
]
