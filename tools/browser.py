"""A browser for the tests of the page: found, or installed where that takes no more than apt.

    python tools/browser.py    # prints its path; as root on Debian it installs one if need be

Needs nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

VARIABLE = "IMGSEARCH_BROWSER"
# What Playwright can drive over the protocol of Chromium.
_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
)
_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


class BrowserUnavailable(Exception):  # noqa: N818  (no error of ours: there is none here)
    """There is no browser to be had here; the text says what would help."""


def find() -> str:
    """The path of a browser: $IMGSEARCH_BROWSER, or one that is installed.

    Raises BrowserUnavailable.
    """
    if given := os.environ.get(VARIABLE):
        if not os.access(given, os.X_OK):
            raise BrowserUnavailable(f"{VARIABLE} is {given}, which is no executable file")
        return given
    found = next(filter(None, map(shutil.which, (*_NAMES, _MAC))), None)
    if found is None:
        raise BrowserUnavailable(
            f"no Chromium, Chrome or Edge is installed: install one, or set {VARIABLE}; as root "
            "on Debian, make browser installs Chromium"
        )
    return found


def install() -> str:
    """The path of a browser, which apt installs if there is none. Raises BrowserUnavailable."""
    try:
        return find()
    except BrowserUnavailable:
        if os.environ.get(VARIABLE) or not shutil.which("apt-get") or os.geteuid() != 0:
            raise
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(["apt-get", *command], env=environment, stdout=sys.stderr)
        if done.returncode:
            raise BrowserUnavailable(f"apt-get {command[0]} ended with {done.returncode}")
    return find()


if __name__ == "__main__":
    try:
        print(install())
    except BrowserUnavailable as error:
        sys.exit(str(error))
