"""The daily collection, and what the owner is told of one."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kestrel.app.registry import GRACE, Administration
from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.oci.digest import Digest
from kestrel.registry import Registry


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Registry, Store]]:
    database = Database(tmp_path / "kestrel.db")
    content = Store(tmp_path, database)
    yield Registry(content, database), content
    database.close()


def old_garbage(content: Store, data: bytes) -> Digest:
    """Write a blob that nobody names, older than the grace."""
    digest = content.put(data)
    moment = time.time() - GRACE - 1
    os.utime(content.path(digest), (moment, moment))
    return digest


async def test_a_collection_is_made_when_it_is_due_and_not_more_often(served: "tuple[Registry, Store]") -> None:
    registry, content = served
    administration = Administration(registry, content, {"registry": registry.repositories}, collect_hours=1)
    first, young = old_garbage(content, b"first"), content.put(b"young")
    await administration.collect_if_due()
    assert not content.has(first)
    assert content.has(young)
    second = old_garbage(content, b"second")
    await administration.collect_if_due()
    assert content.has(second)
    administration._last -= 3601
    await administration.collect_if_due()
    assert not content.has(second)


async def test_without_a_period_nothing_is_collected_by_itself(served: "tuple[Registry, Store]") -> None:
    registry, content = served
    garbage = old_garbage(content, b"garbage")
    await Administration(registry, content, {"registry": registry.repositories}).collect_if_due()
    assert content.has(garbage)


async def test_a_dry_run_tells_of_every_blob_and_removes_none(served: "tuple[Registry, Store]") -> None:
    registry, content = served
    digests = {old_garbage(content, b"%d" % number) for number in range(450)}
    told: list[Any] = []

    async def emit(event: dict[str, Any]) -> None:
        told.extend(event["verdicts"])

    administration = Administration(registry, content, {"registry": registry.repositories})
    options = {"dry_run": True, "untagged": False}
    answer = await administration(("gc",), options, emit)
    assert (answer["removed"], answer["kept"]) == (450, 0)
    assert {digest for digest, *_ in told} == digests
    assert {reason for *_, reason in told} == {"nothing names it"}
    assert all(content.has(digest) for digest in digests)
    assert (await administration(("gc",), {**options, "dry_run": False}, emit))["removed"] == 450
    assert b"kestrel_registry_collected_blobs_total 450" in registry.metrics.text({})
