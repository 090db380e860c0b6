"""The registry as its owner sees it: who may do what, what became of tags, and what a collection takes.

`Administration` is what `kestrel registry` asks through the control socket, which only root can reach; the rules are
the registry's own. `listeners` says where the registry is to be heard, and refuses to be open to a network.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kestrel.app.settings import Settings
from kestrel.base.errors import InvalidArgument, NotFound, nearest
from kestrel.content import Root, Store, Verdict, sweeping
from kestrel.http.client import is_loopback
from kestrel.http.server import Limits, Tcp
from kestrel.http.tls import Authority, context_of
from kestrel.oci.digest import Digest
from kestrel.oci.reference import is_tag
from kestrel.registry import Registry
from kestrel.registry.access.model import ANONYMOUS, EVERYONE, Principal, named
from kestrel.registry.metadata import TagRule, UpstreamRule

log = logging.getLogger("kestrel")
LIMITS = Limits(stalled_seconds=120.0)
"""A client that takes nothing for two minutes is gone; registries are pulled from over bad lines."""
GRACE = 600.0
"""Seconds a blob that nothing names is left alone: a build or a pull may be about to name it."""
_BATCH = 200
Emit = Callable[[dict[str, Any]], Awaitable[None]]


def listener(settings: Settings, registry: Registry, authority: Authority) -> Tcp:
    """Return where the registry listens. Raises InvalidArgument when anybody on a network could change it."""
    address = settings.registry_address
    if registry.open_to_all and not is_loopback(address):
        raise InvalidArgument(
            f"the registry has no accounts, so at {address} anybody could push to it",
            hint="start without KESTREL_REGISTRY_ADDRESS, make an account with `kestrel registry user add NAME`, and"
            " start again",
        )
    tls = None
    if settings.registry_certificate is not None:
        tls = context_of(settings.registry_certificate, settings.registry_key or settings.registry_certificate)
    elif settings.registry_tls:
        names = [name for name in settings.registry_names if not _is_address(name)]
        addresses = [name for name in settings.registry_names if _is_address(name)]
        reached = [address] if address not in ("0.0.0.0", "::") and _is_address(address) else []
        tls = authority.server_context(["localhost", *names], ["127.0.0.1", "::1", *reached, *addresses])
    return Tcp(host=address, port=settings.registry_port, tls=tls)


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()


class Administration:
    """Verbs over one registry; words come as they were typed."""

    def __init__(
        self, registry: Registry, content: Store, roots: Mapping[str, Root], *, collect_hours: float = 0.0
    ) -> None:
        self._period = collect_hours * 3600
        self._last = 0.0
        self._registry = registry
        self._accounts = registry.accounts
        self._repositories = registry.repositories
        self._content = content
        self._roots = roots
        self._verbs: dict[str, Callable[..., Any]] = {
            "user add": self._add_user,
            "user list": self._list_accounts,
            "user password": self._set_password,
            "user rm": self._remove_account,
            "robot add": self._add_robot,
            "robot list": self._list_accounts,
            "robot rm": self._remove_account,
            "key add": self._add_key,
            "key list": self._list_keys,
            "key rm": self._remove_key,
            "grant add": self._grant,
            "grant list": self._list_grants,
            "grant rm": self._revoke,
            "why": self._why,
            "immutable add": self._immutable,
            "immutable list": self._list_rules,
            "immutable rm": self._mutable,
            "upstream add": self._add_upstream,
            "upstream list": self._list_upstreams,
            "upstream rm": self._remove_upstream,
            "history": self._history,
            "rollback": self._rollback,
            "deleted": self._deleted,
            "restore": self._restore,
        }

    async def __call__(self, words: tuple[str, ...], options: Mapping[str, Any], emit: Emit) -> Any:
        """Do what the words say. Raises InvalidArgument that says which words there are, and what the registry does."""
        if words[:1] == ("gc",):
            return await self._collect(options, emit)
        for length in (2, 1):
            verb = self._verbs.get(" ".join(words[:length]))
            if verb is not None:
                break
        else:
            typed = " ".join(words[:2])
            close = nearest(typed, [*self._verbs, "gc"])
            raise InvalidArgument(
                f"unknown `kestrel registry {typed}`",
                hint=f"did you mean `kestrel registry {close}`?" if close else "see `kestrel registry --help`",
            )
        return await asyncio.to_thread(verb, words[length:], options)

    # -- accounts

    def _add_user(self, words: tuple[str, ...], options: Mapping[str, Any]) -> Any:
        (name,) = _exactly(words, "NAME")
        account = self._accounts.add_user(name, options["password"], _grants(options))
        return {"name": account.name, "grants": self._granted(name)}

    def _set_password(self, words: tuple[str, ...], options: Mapping[str, Any]) -> Any:
        (name,) = _exactly(words, "NAME")
        self._accounts.set_password(name, options["password"])
        return {"name": name}

    def _add_robot(self, words: tuple[str, ...], options: Mapping[str, Any]) -> Any:
        (name,) = _exactly(words, "NAME")
        key = self._accounts.add_robot(name, _grants(options), options["days"])
        return {"name": name, "key": key, "grants": self._granted(name)}

    def _remove_account(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        (name,) = _exactly(words, "NAME")
        self._accounts.remove_account(name)
        return {"name": name}

    def _list_accounts(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        _exactly(words)
        return [
            {"name": each.name, "kind": each.kind, "created": each.created, "grants": self._granted(each.name)}
            for each in sorted(self._accounts.current().accounts.values(), key=lambda each: each.name)
        ]

    def _granted(self, name: str) -> list[str]:
        grants = self._accounts.current().grants
        return [f"{g.pattern}:{','.join(sorted(g.actions))}" for g in grants if g.account == name]

    def _add_key(self, words: tuple[str, ...], options: Mapping[str, Any]) -> Any:
        (account,) = _exactly(words, "ACCOUNT")
        return {
            "account": account,
            "key": self._accounts.add_key(account, label=options["label"], days=options["days"]),
        }

    def _list_keys(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        account = words[0] if words else ""
        return [
            {
                "id": k.id,
                "account": k.account,
                "kind": k.kind,
                "label": k.label,
                "created": k.created,
                "expires": k.expires,
            }
            for k in sorted(self._accounts.keys(account), key=lambda k: (k.account, k.created))
        ]

    def _remove_key(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        (identity,) = _exactly(words, "ID")
        return {"id": identity, "account": self._accounts.remove_key(identity).account}

    def _grant(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        account, pattern, actions = _exactly(words, "ACCOUNT", "PATTERN", "ACTIONS")
        grant = self._accounts.grant(account, pattern, actions)
        return {"account": account, "pattern": pattern, "actions": sorted(grant.actions)}

    def _revoke(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        account, pattern = _exactly(words, "ACCOUNT", "PATTERN")
        self._accounts.revoke(account, pattern)
        return {"account": account, "pattern": pattern}

    def _list_grants(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        _exactly(words)
        grants = self._accounts.current().grants
        return [{"account": g.account, "pattern": g.pattern, "actions": sorted(g.actions)} for g in grants]

    def _why(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        """Say whether an account may do something in a repository, and which grants decide that."""
        account, action, repository = _exactly(words, "ACCOUNT", "ACTION", "REPOSITORY")
        roster = self._accounts.current()
        if roster.empty:
            return {"allowed": True, "because": ["there are no accounts: everybody may do everything"]}
        if account not in (*roster.accounts, ANONYMOUS, EVERYONE):
            return {"allowed": False, "because": [f"there is no account {account}"]}
        grants = named(roster.grants, account)
        deciding = [g for g in grants if Principal(account, (g,)).may(action, repository)]
        because = [f"{g.account} has {','.join(sorted(g.actions))} for {g.pattern}" for g in deciding or grants]
        return {"allowed": bool(deciding), "because": because or [f"nothing is granted to {account}"]}

    # -- tags

    def _immutable(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        return self._set_rule(words, present=True)

    def _mutable(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        return self._set_rule(words, present=False)

    def _set_rule(self, words: tuple[str, ...], *, present: bool) -> Any:
        (text,) = _exactly(words, "REPOSITORIES:TAGS")
        repositories, tags = text.partition(":")[::2]
        rule = TagRule(repositories, tags or "*")
        changed = self._repositories.set_tag_rule(rule, present=present)
        return {"rule": f"{rule.repositories}:{rule.tags}", "changed": changed}

    def _list_rules(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        _exactly(words)
        return [f"{rule.repositories}:{rule.tags}" for rule in self._repositories.tag_rules()]

    def _add_upstream(self, words: tuple[str, ...], options: Mapping[str, Any]) -> Any:
        prefix, domain = _exactly(words, "PREFIX", "REGISTRY")
        self._registry.cached.set_rule(UpstreamRule(prefix, domain, options["default"]), present=True)
        return {"prefix": prefix, "domain": domain}

    def _remove_upstream(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        (prefix,) = _exactly(words, "PREFIX")
        if not self._registry.cached.set_rule(UpstreamRule(prefix, ""), present=False):
            raise NotFound(f"{prefix} is no cache", hint="see `kestrel registry upstream list`")
        return {"prefix": prefix}

    def _list_upstreams(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        _exactly(words)
        return [{"prefix": r.prefix, "registry": r.domain, "default": r.default} for r in self._registry.cached.rules]

    def _history(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        (text,) = _exactly(words, "REPOSITORY[:TAG]")
        repository, tag = text.partition(":")[::2]
        return [
            {"tag": c.tag, "digest": c.digest, "moment": c.moment, "actor": c.actor}
            for c in self._repositories.history(repository, tag)
        ]

    def _rollback(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        if not 1 <= len(words) <= 2:
            _exactly(words, "REPOSITORY:TAG", "[DIGEST]")
        repository, tag = words[0].partition(":")[::2]
        if not is_tag(tag):
            raise InvalidArgument(f"{words[0]!r} names no tag", hint="write REPOSITORY:TAG")
        to = Digest.parse(words[1]) if words[1:] else None
        return {"name": words[0], "digest": self._repositories.rollback(repository, tag, to, actor="this node")}

    def _deleted(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        return [
            {"repository": g.repository, "digest": g.digest, "tags": g.tags, "kind": g.media_type, "moment": g.moment}
            for g in self._repositories.gone(words[0] if words else "")
        ]

    def _restore(self, words: tuple[str, ...], _: Mapping[str, Any]) -> Any:
        (text,) = _exactly(words, "REPOSITORY@DIGEST")
        repository, digest = text.partition("@")[::2]
        gone = self._repositories.restore(repository, Digest.parse(digest), actor="this node")
        return {"repository": repository, "digest": gone.digest, "tags": gone.tags}

    # -- collection

    async def collect_if_due(self) -> None:
        """Collect when the last time is long enough ago; the first time at once. For whoever asks now and then."""
        if not self._period or (self._last and time.monotonic() - self._last < self._period):
            return
        self._last = time.monotonic()
        done = await self._collect({"dry_run": False, "untagged": False}, _nobody)
        if done["removed"]:
            log.info("collected %d blobs that nothing names, %d bytes", done["removed"], done["freed"])

    async def _collect(self, options: Mapping[str, Any], emit: Emit) -> Any:
        """Collect, and with `dry_run` send what would become of each blob, some at a time."""
        dry_run, began = options["dry_run"], time.monotonic()
        totals = {"removed": 0, "freed": 0, "kept": 0, "untagged": 0}
        if options["untagged"]:
            age = self._registry.settings.undo_seconds
            found = await asyncio.to_thread(self._repositories.remove_untagged, age, dry_run=dry_run)
            totals["untagged"] = len(found)
        await asyncio.to_thread(self._registry.tidy)
        verdicts = sweeping(self._content, self._roots, grace=GRACE, dry_run=dry_run)
        while batch := await asyncio.to_thread(_some, verdicts):
            for verdict in batch:
                totals["removed" if verdict.removed else "kept"] += 1
                totals["freed"] += verdict.size if verdict.removed else 0
            if dry_run:
                await emit({"verdicts": [[v.digest, v.size, v.removed, v.reason] for v in batch]})
        if not dry_run:
            self._registry.metrics.count("collected_blobs_total", totals["removed"])
            self._registry.metrics.count("collected_bytes_total", totals["freed"])
        return {**totals, "dry_run": dry_run, "seconds": time.monotonic() - began}


async def _nobody(_: dict[str, Any]) -> None:
    """Nobody listens."""


def _some(verdicts: Any) -> list[Verdict]:
    found: list[Verdict] = []
    for verdict in verdicts:
        found.append(verdict)
        if len(found) == _BATCH:
            break
    return found


def _exactly(words: tuple[str, ...], *names: str) -> tuple[str, ...]:
    if len(words) != len(names):
        wanted = " ".join(names) or "no words"
        raise InvalidArgument(
            f"got {len(words)} words where {wanted} is expected", hint="see `kestrel registry --help`"
        )
    return words


def _grants(options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in options["grants"]:
        pattern, colon, actions = text.rpartition(":")
        if not colon:
            raise InvalidArgument(f"invalid grant {text!r}", hint="write PATTERN:ACTIONS, such as 'team/**:pull,push'")
        pairs.append((pattern, actions))
    return tuple(pairs)
