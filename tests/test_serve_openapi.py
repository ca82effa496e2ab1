"""The service conforms to its OpenAPI description, for generated requests."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from imgsearch.server.app import create_app
from imgsearch.server.service import Service
from imgsearch.server.settings import Settings
from tests.fakes import ColorEncoder
from tests.serving import Served, filled, serving

DESCRIPTION = create_app(Service(Settings())).openapi()
OPERATIONS = [
    (path, method) for path, operations in DESCRIPTION["paths"].items() for method in operations
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(filled(tmp_path_factory.mktemp("described")), ColorEncoder()) as served:
        yield served


@pytest.fixture(scope="module")
def described(served: Served) -> Any:
    import schemathesis  # here, as only the worker that runs these tests needs it

    return schemathesis.openapi.from_dict(served.client.get("/openapi.json").json())


@pytest.fixture(scope="module")
def checks() -> list[Any]:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as openapi

    return [
        not_a_server_error,
        openapi.content_type_conformance,
        openapi.response_schema_conformance,
        openapi.status_code_conformance,
    ]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_responses_conform_to_the_description(
    served: Served, described: Any, checks: list[Any], path: str, method: str
) -> None:
    @given(case=described[path][method].as_strategy())
    @settings(
        max_examples=20,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        case.call_and_validate(base_url=served.url, checks=checks)

    check()
    assert served.client.get("/readyz").status_code == 200


def test_operations_and_models_are_described_with_examples() -> None:
    for path, operations in DESCRIPTION["paths"].items():
        for method, operation in operations.items():
            assert operation["description"] if path != "/" else operation, (method, path)
            assert operation["responses"]["429"], (method, path)
    names = ("Record", "SearchHit", "SearchAnswer", "SearchAnswers", "QueryAnswer", "Collection")
    for name in (*names, "JobStatus"):
        properties = DESCRIPTION["components"]["schemas"][name]["properties"]
        assert any("examples" in each for each in properties.values()), name
