"""Containers and sandboxes that outlive the daemon: one JSON document each, and all of them in memory too.

A record is written before the effect it announces is shown to anyone, so that after kill -9 the next daemon knows of
everything that may exist on the host. The dictionaries are the truth for readers; SQLite is read once, at start.
Records of containers are on disk before anyone is told; those of sandboxes, and of containers that go when they end,
need not survive a power cut, which none of these survives.
"""

from collections.abc import Iterable

import msgspec

from kestrel.base.db import Database
from kestrel.base.errors import AlreadyExists, NotFound, nearest
from kestrel.base.ids import find
from kestrel.engine.model import Container, Sandbox

MIGRATIONS = {
    "engine-1": """
        CREATE TABLE sandbox (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
        CREATE TABLE container (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, document BLOB NOT NULL) WITHOUT ROWID;
    """,
}


class Store:
    """All sandboxes and containers of this engine, by id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(MIGRATIONS)
        self.sandboxes: dict[str, Sandbox] = {
            row["id"]: msgspec.json.decode(row["document"], type=Sandbox)
            for row in database.query("SELECT id, document FROM sandbox")
        }
        self.containers: dict[str, Container] = {
            row["id"]: msgspec.json.decode(row["document"], type=Container)
            for row in database.query("SELECT id, document FROM container")
        }
        self._names = {c.config.name: c.id for c in self.containers.values()}

    def save_sandbox(self, sandbox: Sandbox) -> None:
        """Write one sandbox, new or changed."""
        self._database.execute(
            "INSERT INTO sandbox VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
            (sandbox.id, msgspec.json.encode(sandbox)),
            durable=False,
        )
        self.sandboxes[sandbox.id] = sandbox

    def save_container(self, container: Container) -> None:
        """Write one container, new or changed. Raises AlreadyExists when its name is another's."""
        name = container.config.name
        owner = self._names.setdefault(name, container.id)
        if owner != container.id:
            raise AlreadyExists(
                f"the name {name!r} is in use by container {owner[:12]}",
                hint=f"choose another --name, or remove that one with `kestrel rm {name}`",
            )
        self._database.execute(
            "INSERT INTO container VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
            (container.id, name, msgspec.json.encode(container)),
            durable=not container.config.auto_remove,
        )
        self.containers[container.id] = container

    def drop_sandbox(self, identity: str) -> None:
        """Forget a sandbox; forgetting twice is fine."""
        self._database.execute("DELETE FROM sandbox WHERE id = ?", (identity,), durable=False)
        self.sandboxes.pop(identity, None)

    def drop_container(self, identity: str) -> None:
        """Forget a container and free its name; forgetting twice is fine."""
        container = self.containers.get(identity)
        durable = container is not None and not container.config.auto_remove
        self._database.execute("DELETE FROM container WHERE id = ?", (identity,), durable=durable)
        if container is not None:
            del self.containers[identity]
            self._names.pop(container.config.name, None)

    def container(self, wanted: str) -> Container:
        """Return a container by name, id or unique prefix of its id. Raises NotFound or InvalidArgument."""
        if wanted in self._names:
            return self.containers[self._names[wanted]]
        try:
            return self.containers[find(wanted, list(self.containers))]
        except NotFound as error:
            close = nearest(wanted, self._names)
            raise NotFound(error.message, hint=f"did you mean {close}?" if close else "see `kestrel ps -a`") from None

    def sandbox(self, identity: str) -> Sandbox:
        """Return a sandbox by id. Raises NotFound."""
        try:
            return self.sandboxes[identity]
        except KeyError:
            raise NotFound(f"no such sandbox: {identity[:12]}") from None

    def containers_of(self, sandbox: str) -> list[Container]:
        """Return the containers of one sandbox."""
        return [c for c in self.containers.values() if c.sandbox == sandbox]

    def first_ids(self) -> frozenset[int]:
        """Return where the ranges of users begin that are taken."""
        sandboxes = (sandbox.first_id for sandbox in self.sandboxes.values())
        return frozenset(sandboxes) | {container.first_id for container in self.containers.values()}

    def names(self) -> Iterable[str]:
        """Return the names that are taken."""
        return self._names.keys()
