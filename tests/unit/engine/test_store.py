"""Records of containers: which of them wait for the disk."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.engine.model import Container, ContainerConfig, ContainerState
from kestrel.engine.store import Store


@pytest.mark.parametrize("auto_remove", [False, True])
def test_only_records_that_must_survive_a_power_cut_wait_for_the_disk(tmp_path: Path, auto_remove: bool) -> None:
    database = Database(tmp_path / "db")
    store = Store(database)
    container = Container(
        id="c" * 64, sandbox="s", image_id="i", image_digest="d", state=ContainerState.CREATED,
        config=ContainerConfig(name="c", image="box", auto_remove=auto_remove), created=datetime.now(UTC),
    )  # fmt: skip
    waits = 1 if auto_remove else 2  # NORMAL and FULL (sqlite.org/pragma.html#pragma_synchronous)
    store.save_container(container)
    assert database.query("PRAGMA synchronous")[0][0] == waits
    assert Store(database).containers == {container.id: container}
    store.drop_container(container.id)
    assert database.query("PRAGMA synchronous")[0][0] == waits
    assert Store(database).containers == {}
    store.drop_container(container.id)
    database.close()
