"""A collection of Weaviate's that another client drops in the middle of being opened."""

import uuid
from collections.abc import Iterator

import pytest

from imgsearch.errors import CollectionNotFoundError
from imgsearch.stores import open_store
from imgsearch.stores.weaviate.store import WeaviateStore
from tests.store_contract import STAMP

pytestmark = pytest.mark.weaviate


@pytest.fixture
def store(one_node: str) -> Iterator[WeaviateStore]:
    with open_store(one_node, 30) as opened:
        assert isinstance(opened, WeaviateStore)
        yield opened


@pytest.mark.parametrize("made_again", [True, False])
def test_between_being_listed_and_read(
    store: WeaviateStore, monkeypatch: pytest.MonkeyPatch, made_again: bool
) -> None:
    name = f"images-{uuid.uuid4().hex[:12]}"
    if made_again:
        store.create(name, STAMP)
    listed = store._classes()
    answers = iter([{**listed, name: "DroppedAMomentAgo"}])
    now = store._classes
    monkeypatch.setattr(store, "_classes", lambda: next(answers, None) or now())
    if made_again:
        assert store.open(name).stamp == STAMP
        store.drop(name)
    else:
        with pytest.raises(CollectionNotFoundError, match=name):
            store.open(name)
