"""docker-compose.yml, as far as it can be checked without an engine (make test-compose has one)."""

import re
from pathlib import Path

from scripts import test_compose

TEXT = (Path(__file__).parents[1] / "docker-compose.yml").read_text()


def test_the_image_is_the_version_that_the_tests_run_against() -> None:
    assert re.findall(r"image: (\S+)", TEXT) == [test_compose.IMAGE]


def test_every_port_is_bound_to_this_computer_alone() -> None:
    published = re.findall(r'- "(.*:(?:8080|50051))"', TEXT)
    assert len(published) == 8
    assert all(port.startswith("127.0.0.1:") for port in published)
