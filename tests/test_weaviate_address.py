"""Where a URL leads to: hosts, ports, TLS, and the addresses of Weaviate Cloud as pasted."""

import pytest

from imgsearch.stores.weaviate.address import is_address, parse


@pytest.mark.parametrize(
    ("url", "http", "grpc"),
    [
        ("weaviate://localhost", "http://localhost:8080", "localhost:50051"),
        ("weaviate://10.0.0.5:9000?grpc=9001", "http://10.0.0.5:9000", "10.0.0.5:9001"),
        ("weaviates://w.example.org", "https://w.example.org:443", "w.example.org:50051"),
        (
            "weaviates://w.example.org?grpc_host=g.example.org&grpc=443",
            "https://w.example.org:443",
            "g.example.org:443",
        ),
        ("weaviate://[::1]:8080", "http://[::1]:8080", "[::1]:50051"),
        (
            "https://abc.c0.europe-west3.gcp.weaviate.cloud",
            "https://abc.c0.europe-west3.gcp.weaviate.cloud:443",
            "grpc-abc.c0.europe-west3.gcp.weaviate.cloud:443",
        ),
        (
            "abc.c0.europe-west3.gcp.weaviate.cloud/",
            "https://abc.c0.europe-west3.gcp.weaviate.cloud:443",
            "grpc-abc.c0.europe-west3.gcp.weaviate.cloud:443",
        ),
        (
            "https://abc.weaviate.network",
            "https://abc.weaviate.network:443",
            "abc.grpc.weaviate.network:443",
        ),
    ],
)
def test_a_url_leads_to_http_and_grpc(url: str, http: str, grpc: str) -> None:
    assert is_address(url)
    address = parse(url)
    assert (address.http, address.grpc) == (http, grpc)
    assert address.secure == http.startswith("https")


@pytest.mark.parametrize(
    "text", ["store", "lance:store", "/a/weaviate", "C:\\store", "https://x.org"]
)
def test_other_stores_are_not_taken_for_a_weaviate(text: str) -> None:
    assert not is_address(text)


def test_options_say_how_collections_are_made() -> None:
    address = parse("weaviate://h?compression=none&replication=3&shards=6&consistency=quorum")
    assert (address.compression, address.replication) == ("none", 3)
    assert (address.shards, address.consistency) == (6, "QUORUM")
    plain = parse("weaviate://h")
    assert (plain.compression, plain.replication, plain.consistency) == (None, None, None)


def test_the_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEAVIATE_API_KEY", "secret")
    address = parse("weaviate://h")
    assert address.key == "secret"
    assert "secret" not in address.url
