"""Accounts, keys and grants: their tables, and a copy in memory that every request reads.

Changes are rare and go through here, so the copy (`Roster`) is replaced after each, and its number grows: whoever
remembers a decision remembers the number with it. Secrets are kept as hashes: passwords as bcrypt, which is slow,
because people choose them; keys, which are random, as SHA-256.

An htpasswd file adds people with their passwords; it is read again when it has changed.
"""

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from kestrel.base.db import Database
from kestrel.base.errors import AlreadyExists, InvalidArgument, NotFound
from kestrel.linux.crypt import check_password, hash_password
from kestrel.registry.access.model import (
    ANONYMOUS,
    EVERYONE,
    ROBOT,
    USER,
    Account,
    Grant,
    Key,
    check_account,
)

MIGRATIONS = {
    "registry-access-1": """
        CREATE TABLE registry_account (
            name TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            hashed TEXT NOT NULL,
            created REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE registry_key (
            id TEXT PRIMARY KEY,
            account TEXT NOT NULL,
            kind TEXT NOT NULL,
            hashed TEXT NOT NULL,
            label TEXT NOT NULL,
            created REAL NOT NULL,
            expires REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE registry_grant (
            account TEXT NOT NULL,
            pattern TEXT NOT NULL,
            actions TEXT NOT NULL,
            PRIMARY KEY (account, pattern)
        ) WITHOUT ROWID;
        CREATE TABLE registry_signing (secret BLOB NOT NULL)
    """,
}
_PREFIX = "kst"
_PASSWORD_LENGTH = 8
_MOST_SESSIONS = 100  # logins of one account; the oldest end
_BCRYPT_LIMIT = 72  # bytes that bcrypt looks at; more would be cut off in silence


@dataclass(frozen=True, slots=True)
class Roster:
    """Everything about access at one moment."""

    number: int
    accounts: dict[str, Account]
    keys: dict[str, Key]
    grants: tuple[Grant, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing was ever said about access: then everybody may do everything."""
        return not self.accounts and not self.grants


class AccountStore(Protocol):
    """The rows behind `Accounts`; each method is one transaction."""

    def load(self) -> tuple[list[Account], list[Key], list[Grant]]:
        """Return everything."""
        ...

    def put(self, *rows: "Account | Key | Grant") -> None:
        """Add rows, or replace those of the same name, id, or account and pattern."""
        ...

    def drop(self, row: "Account | Key | Grant") -> None:
        """Remove a row; with an account go its keys and grants."""
        ...

    def signing_secret(self) -> bytes:
        """Return what tokens are signed with, the same ever after."""
        ...


class SqliteAccounts:
    """`AccountStore` in the daemon's SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(MIGRATIONS)

    def load(self) -> tuple[list[Account], list[Key], list[Grant]]:
        """See `AccountStore`; so for all below."""
        query = self._database.query
        accounts = [
            Account(r["name"], r["kind"], r["hashed"], r["created"]) for r in query("SELECT * FROM registry_account")
        ]
        keys = [Key(**dict(row)) for row in query("SELECT * FROM registry_key")]
        grants = [
            Grant(row["account"], row["pattern"], frozenset(row["actions"].split(",")))
            for row in query("SELECT * FROM registry_grant ORDER BY account, pattern")
        ]
        return accounts, keys, grants

    def put(self, *rows: "Account | Key | Grant") -> None:  # noqa: D102
        with self._database.transaction() as connection:
            for row in rows:
                values: tuple[object, ...]
                if isinstance(row, Account):
                    table, values = "account", (row.name, row.kind, row.hashed, row.created)
                elif isinstance(row, Key):
                    table = "key"
                    values = (row.id, row.account, row.kind, row.hashed, row.label, row.created, row.expires)
                else:
                    table, values = "grant", (row.account, row.pattern, ",".join(sorted(row.actions)))
                marks = ", ".join("?" * len(values))
                connection.execute(f"INSERT OR REPLACE INTO registry_{table} VALUES ({marks})", values)

    def drop(self, row: "Account | Key | Grant") -> None:  # noqa: D102
        with self._database.transaction() as connection:
            if isinstance(row, Account):
                connection.execute("DELETE FROM registry_account WHERE name = ?", (row.name,))
                for table in ("key", "grant"):
                    connection.execute(f"DELETE FROM registry_{table} WHERE account = ?", (row.name,))
            elif isinstance(row, Key):
                connection.execute("DELETE FROM registry_key WHERE id = ?", (row.id,))
            else:
                connection.execute(
                    "DELETE FROM registry_grant WHERE account = ? AND pattern = ?", (row.account, row.pattern)
                )

    def signing_secret(self) -> bytes:  # noqa: D102
        with self._database.transaction() as connection:
            row = connection.execute("SELECT secret FROM registry_signing").fetchone()
            if row is None:
                connection.execute("INSERT INTO registry_signing VALUES (?)", (os.urandom(32),))
                row = connection.execute("SELECT secret FROM registry_signing").fetchone()
            return bytes(row["secret"])


class Accounts:
    """What people change about access, and what requests ask."""

    def __init__(self, store: AccountStore, htpasswd: "Path | None" = None) -> None:
        self._store = store
        self._htpasswd = htpasswd
        self._htpasswd_stamp = (0, 0)
        self._number = 0
        self._file_accounts: dict[str, Account] = {}
        self.roster = self._read()

    @property
    def signing_secret(self) -> bytes:
        """What tokens are signed with."""
        return self._store.signing_secret()

    def current(self) -> Roster:
        """Return everything as it is now."""
        if self._htpasswd is not None and self._stamp() != self._htpasswd_stamp:
            self.roster = self._read()
        return self.roster

    # -- what people do

    def add_user(self, name: str, password: str, grants: "tuple[tuple[str, str], ...]" = ()) -> Account:
        """Make an account for a person, with (pattern, actions) pairs. Raises AlreadyExists, InvalidArgument."""
        return self._add(Account(check_account(name), USER, _hashed(password), time.time()), grants)

    def add_robot(self, name: str, grants: "tuple[tuple[str, str], ...]" = (), days: float = 0) -> str:
        """Make an account for a program; returns its first key, which is shown only now."""
        self._add(Account(check_account(name), ROBOT, "", time.time()), grants)
        return self.add_key(name, label="first key", days=days)

    def set_password(self, name: str, password: str) -> None:
        """Give a person another password, and end every login made with the old one."""
        account = self._account(name)
        if account.kind != USER:
            raise InvalidArgument(f"{name} is a robot, which has no password", hint="make it a new key")
        self._store.put(Account(name, USER, _hashed(password), account.created))
        for key in self.keys(name):
            if key.kind == "session":
                self._store.drop(key)
        self._reload()

    def remove_account(self, name: str) -> None:
        """Remove an account with its keys and grants; whoever is logged in as it is so no more. Raises NotFound."""
        self._store.drop(self._account(name))
        self._reload()

    def add_key(self, account: str, *, label: str = "", days: float = 0, kind: str = "key") -> str:
        """Make a key that stands in for the password; returns it, it is kept as a hash only. Raises NotFound."""
        self._account(account, anywhere=True)
        now = time.time()
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        text = f"{_PREFIX}_{identity}_{secret}"
        expires = now + days * 86400 if days else 0.0
        key = Key(
            id=identity, account=account, kind=kind, hashed=_digest(text), label=label, created=now, expires=expires
        )
        self._store.put(key)
        same = sorted((each for each in self.keys(account) if each.kind == kind == "session"), key=lambda k: k.created)
        for old in same[: max(len(same) + 1 - _MOST_SESSIONS, 0)]:
            self._store.drop(old)
        self._reload()
        return text

    def remove_key(self, identity: str) -> Key:
        """End a key, or a login. Raises NotFound."""
        key = self.current().keys.get(identity)
        if key is None:
            raise NotFound(f"there is no key {identity}", hint="see `kestrel registry key list`")
        self._store.drop(key)
        self._reload()
        return key

    def keys(self, account: str = "") -> list[Key]:
        """Return the keys of an account, or all."""
        return [key for key in self.current().keys.values() if account in ("", key.account)]

    def grant(self, account: str, pattern: str, actions: str) -> Grant:
        """Let an account do something in the repositories that match; replaces what that pattern said before."""
        if account not in (ANONYMOUS, EVERYONE):
            self._account(account, anywhere=True)
        grant = Grant.parse(account, pattern, actions)
        self._store.put(grant)
        self._reload()
        return grant

    def revoke(self, account: str, pattern: str) -> None:
        """Take a grant back. Raises NotFound."""
        found = next((g for g in self.current().grants if (g.account, g.pattern) == (account, pattern)), None)
        if found is None:
            raise NotFound(f"{account} has no grant for {pattern}", hint="see `kestrel registry grant list`")
        self._store.drop(found)
        self._reload()

    # -- what requests ask

    def check(self, name: str, secret: str, *, kind: str = "key") -> bool:
        """Whether a secret is the account's password or one of its keys. Slow for passwords: call from a thread."""
        if secret.startswith(f"{_PREFIX}_"):
            key = self.key(secret)
            return key is not None and key.account == name and key.kind == kind
        account = self.current().accounts.get(name)
        known = account.hashed if account else ""
        # Nobody is to learn from the time it takes which accounts there are.
        return check_password(secret, known or _nobodys_hash()) and bool(known)

    def key(self, secret: str) -> "Key | None":
        """Return the key that a secret is, if it is good."""
        prefix, _, rest = secret.partition("_")
        key = self.current().keys.get(rest.partition("_")[0]) if prefix == _PREFIX else None
        if key is None or not hmac.compare_digest(key.hashed, _digest(secret)) or not key.is_good(time.time()):
            return None
        return key

    # -- inside

    def _add(self, account: Account, grants: "tuple[tuple[str, str], ...]") -> Account:
        if account.name in self.current().accounts:
            raise AlreadyExists(f"the account {account.name} exists already")
        self._store.put(account, *(Grant.parse(account.name, *pair) for pair in grants))
        self._reload()
        return account

    def _account(self, name: str, *, anywhere: bool = False) -> Account:
        """Return an account of ours, or with `anywhere` one of the htpasswd file."""
        found = self.current().accounts.get(name)
        if found is None:
            raise NotFound(f"there is no account {name}", hint="see `kestrel registry user list`")
        if name in self._file_accounts and not anywhere:
            raise InvalidArgument(f"{name} comes from {self._htpasswd}", hint="change that file")
        return found

    def _reload(self) -> None:
        self.roster = self._read()

    def _read(self) -> Roster:
        accounts, keys, grants = self._store.load()
        if self._htpasswd is not None:
            self._htpasswd_stamp = self._stamp()
            self._file_accounts = _read_htpasswd(self._htpasswd)
        self._number += 1
        return Roster(
            self._number,
            {**{account.name: account for account in accounts}, **self._file_accounts},
            {key.id: key for key in keys},
            tuple(grants),
        )

    def _stamp(self) -> tuple[int, int]:
        assert self._htpasswd is not None
        try:
            status = self._htpasswd.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino


def _read_htpasswd(path: Path) -> dict[str, Account]:
    """Read `name:hash` lines (`man 1 htpasswd`). Raises InvalidArgument for a hash that is not bcrypt."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InvalidArgument(f"cannot read the htpasswd file {path}: {error.strerror}") from error
    found = {}
    for number, line in enumerate(lines, 1):
        name, colon, hashed = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        if not colon or not hashed.startswith(("$2a$", "$2b$", "$2y$")):
            raise InvalidArgument(f"{path}:{number}: the password of {name} is not bcrypt", hint="use `htpasswd -B`")
        found[name] = Account(name, USER, hashed)
    return found


def _hashed(password: str) -> str:
    if len(password) < _PASSWORD_LENGTH:
        raise InvalidArgument(f"the password has fewer than {_PASSWORD_LENGTH} characters")
    if len(password.encode()) > _BCRYPT_LIMIT:
        raise InvalidArgument(f"the password has more than {_BCRYPT_LIMIT} bytes, which is all that bcrypt looks at")
    if password.startswith(f"{_PREFIX}_"):
        raise InvalidArgument(f"a password does not begin with {_PREFIX}_, as keys do")
    return hash_password(password)


@cache
def _nobodys_hash() -> str:
    return hash_password(secrets.token_urlsafe(16))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
