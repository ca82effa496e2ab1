"""Find a browser for the tests of the page, or install it with apt.

    python tools/browser.py    # prints its path; as root on Debian, installs one if necessary

Uses the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

VARIABLE = "IMGSEARCH_BROWSER"
# Browsers that Playwright drives with Chromium's protocol.
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


class BrowserUnavailable(Exception):  # noqa: N818  (not an error of imgsearch)
    """No browser is available; the message gives a remedy."""


def find() -> str:
    """Return the path of $IMGSEARCH_BROWSER or of an installed browser.

    Raises BrowserUnavailable.
    """
    if given := os.environ.get(VARIABLE):
        if not os.access(given, os.X_OK):
            raise BrowserUnavailable(f"{VARIABLE} is {given}, which is not an executable file")
        return given
    found = next(filter(None, map(shutil.which, (*_NAMES, _MAC))), None)
    if found is None:
        raise BrowserUnavailable(
            f"no Chromium, Chrome or Edge is installed: install one, or set {VARIABLE}; as root "
            "on Debian, make browser installs Chromium"
        )
    return found


def install() -> str:
    """Return the path of a browser; install one with apt if there is none.

    Raises BrowserUnavailable.
    """
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
