"""Who calls and how: what every verb is told besides the object.

A `Call` belongs to one request. Verbs add warnings to it; the HTTP side turns them into `Warning` headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
SERVICE_ACCOUNTS = "system:serviceaccounts"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"

STRICT, WARN, IGNORE = "Strict", "Warn", "Ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An identity: what authentication found out."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_master(self) -> bool:
        """Whether everything is allowed to it."""
        return MASTERS in self.groups

    @property
    def service_account(self) -> tuple[str, str] | None:
        """Namespace and name when it is a service account."""
        if not self.name.startswith(SERVICE_ACCOUNT_PREFIX):
            return None
        namespace, _, name = self.name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
        return namespace, name


ANONYMOUS = Caller(name="system:anonymous", groups=(UNAUTHENTICATED,))
INTERNAL = Caller(name="system:kestrel", groups=(MASTERS, AUTHENTICATED))
"""The platform's own parts, which call without HTTP."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request: who, as which field manager, and how strict."""

    caller: Caller = INTERNAL
    manager: str = ""
    dry_run: bool = False
    validation: str = IGNORE
    force: bool = False
    applied: bool = False
    """Whether the write is a server-side apply, which records its owners itself."""
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        """Add a warning for the client to show, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)
