"""Run tests with the lowest versions that pyproject.toml allows: `make test-lowest`.

A temporary virtual environment gets the lowest version of each direct dependency (and the newest
of theirs), and the tests below run in it. If a dependency is too old, raise its lower bound.

    python tools/lowest.py [--keep FOLDER] [PYTEST ARGUMENT...]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Tests of each dependency. The whole suite takes three times as long, and most of it does not
# depend on versions.
TESTS = (
    "tests/test_cli.py",
    "tests/test_dependencies.py",
    "tests/test_gallery.py",
    "tests/test_images.py",
    "tests/test_int8.py",
    "tests/test_lance_store.py",
    "tests/test_onnx_encoder.py",
    "tests/test_page_guards.py",
    "tests/test_raw_images.py",
    "tests/test_serve_middleware.py",
    "tests/test_serve_openapi.py",
    "tests/test_weaviate_store.py",
)


def main() -> int:
    """Run the tests; return the exit code of pytest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="an environment to create or reuse")
    own, arguments = parser.parse_known_args()
    folder = own.keep or Path(tempfile.mkdtemp(prefix="imgsearch-lowest-"))
    try:
        python = _environment(folder)
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        return subprocess.run(
            [*command, *(arguments or ["-n", "auto", "--dist", "loadfile", *TESTS])], cwd=ROOT
        ).returncode
    finally:
        if not own.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> Path:
    """Create the environment; return its interpreter, of the same version as this one."""
    uv = shutil.which(
        "uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if uv is None:
        raise SystemExit("uv is not installed: run make setup")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    lowest = ["--resolution", "lowest-direct", "-e", f"{ROOT}[dev,heic,map,raw]"]
    subprocess.run([*install, *lowest], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
