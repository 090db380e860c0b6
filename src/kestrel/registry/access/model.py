"""The words of access: accounts, keys, grants, and the principal that a request turns out to be from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.registry.patterns import check, matches

PULL, PUSH, DELETE = "pull", "push", "delete"
ACTIONS = (PULL, PUSH, DELETE)
"""The token protocol's words (distribution, spec/auth/scope.md). Who may push may also pull."""
ANONYMOUS, EVERYONE = "anonymous", "everyone"
"""Accounts nobody logs in to: what is granted to them anybody may do, or anybody who has logged in."""
USER, ROBOT = "user", "robot"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._+@-]{0,63}")


_EVERYTHING = frozenset(ACTIONS)


@dataclass(frozen=True, slots=True)
class Account:
    """A person with a password, or a robot with keys only. `hashed` is empty when it has no password."""

    name: str
    kind: str
    hashed: str = field(default="", repr=False)
    created: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A secret of an account that is no password: an API key, or the identity token of a login (`session`).

    `expires` is 0 for never; times in seconds since the epoch.
    """

    id: str
    account: str
    kind: str
    hashed: str = field(repr=False)
    label: str = ""
    created: float = 0.0
    expires: float = 0.0

    def is_good(self, now: float) -> bool:
        """Whether it can still be used."""
        return not self.expires or now < self.expires


@dataclass(frozen=True, slots=True)
class Grant:
    """What an account may do in the repositories that match a pattern."""

    account: str
    pattern: str
    actions: frozenset[str]

    @classmethod
    def parse(cls, account: str, pattern: str, actions: str) -> "Grant":
        """Read `pull,push`; raises InvalidArgument with the nearest word."""
        wanted = frozenset(filter(None, actions.split(",")))
        for word in wanted - {*ACTIONS}:
            close = nearest(word, ACTIONS)
            raise InvalidArgument(
                f"unknown action {word!r}", hint=f"did you mean {close}?" if close else "there are pull, push, delete"
            )
        if not wanted:
            raise InvalidArgument("no action is named", hint="write pull, push or delete, separated by commas")
        return cls(account, check(pattern), wanted | ({PULL} if PUSH in wanted else frozenset()))


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request is from, and what it may do. With `scopes` no more than a token was given."""

    name: str
    grants: tuple[Grant, ...] = ()
    everything: bool = False
    scopes: "Mapping[str, frozenset[str]] | None" = None

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody has logged in."""
        return self.name == ANONYMOUS

    def granted(self, repository: str) -> frozenset[str]:
        """Return what the account may do in a repository, whatever its token says."""
        if self.everything:
            return _EVERYTHING
        return frozenset[str]().union(*(g.actions for g in self.grants if matches(g.pattern, repository)))

    def may(self, action: str, repository: str) -> bool:
        """Whether this request may do something."""
        if self.scopes is not None and action not in self.scopes.get(repository, ()):
            return False
        return action in self.granted(repository)


OPEN = Principal("", everything=True)
"""Everybody, where there are no accounts."""


def check_account(name: str) -> str:
    """Return the name of an account that can be made, or raise InvalidArgument."""
    if name in (ANONYMOUS, EVERYONE):
        raise InvalidArgument(f"{name!r} is no account of its own", hint="grant to it without making it")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"invalid account name {name[:80]!r}", hint="use letters, digits and . _ + @ -, 64 at most"
        )
    return name


def named(grants: Iterable[Grant], account: str) -> tuple[Grant, ...]:
    """Return what is granted to an account, by its name or as one of many."""
    groups = {account, ANONYMOUS} | (set() if account == ANONYMOUS else {EVERYONE})
    return tuple(grant for grant in grants if grant.account in groups)
