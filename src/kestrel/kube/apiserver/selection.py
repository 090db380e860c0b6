"""Lists and watches: selectors, pages and moments, the same for the wire and for the in-process transport.

A list is at one resourceVersion. Its `continue` token says at which and behind which key to go on, so that the pages
of one list agree with each other for as long as the store remembers that moment.

A watch without a resourceVersion first shows what is there (as ADDED), then what happens. With `sendInitialEvents` a
bookmark marks the end of the first part, which is how newer clients list.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.kube.api import status
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.api.selectors import Fields, Labels
from kestrel.kube.client import ListOptions, is_expired
from kestrel.kube.store import Key, Match, ObjectStore, Page, Record

BOOKMARK_SECONDS = 60.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_TOO_OLD_TOKEN = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."  # noqa: E501 - Kubernetes' own sentence


View = Callable[[JSONObject], JSONObject]
"""Makes of a stored object the one that is asked for: most are asked for as they are stored."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Label and field selectors of one request, bound to a resource."""

    match: Match | None
    name: str = ""
    namespace: str = ""

    @classmethod
    def parse(cls, resource: Resource, labels: str, fields: str, view: View) -> Selection:
        """Read both selectors; raises InvalidArgument (400) with the sentence of the parser."""
        try:
            wanted = Labels.parse(labels)
            parsed = Fields.parse(fields)
            matcher = parsed.for_resource(resource)
        except InvalidArgument as error:
            raise status.bad_request(error.message) from error
        name = parsed.exact("metadata.name") or ""
        namespace = parsed.exact("metadata.namespace") or ""
        if not wanted and not parsed:
            return cls(None)

        def match(record: Record) -> bool:
            return (not wanted or wanted.matches(record.labels)) and (
                not parsed or matcher.matches(view(record.object))
            )

        return cls(match, name, namespace)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list answers: a page, and the token to go on with."""

    page: Page
    continuation: str = ""
    remaining: int | None = None


def listing(
    store: ObjectStore,
    collection: str,
    resource: Resource,
    namespace: str,
    name: str,
    options: ListOptions,
    view: View,
) -> Listing:
    """Return the selected objects; raises InvalidArgument and Expired (410)."""
    if options.send_initial_events is not None:
        raise _invalid_options("sendInitialEvents", "sendInitialEvents is forbidden for list")
    selection = Selection.parse(resource, options.labels, options.fields, view)
    after, version = _moment(store, options)
    name = name or selection.name
    if name and after is None and (namespace or not resource.namespaced) and version is None:
        return Listing(_single(store, Key(collection, namespace, name), selection.match))
    try:
        page = store.list(
            collection, namespace, match=selection.match, limit=max(options.limit, 0), after=after, version=version
        )
    except KestrelError as error:
        if not is_expired(error) or after is None:
            raise
        raise status.expired(_TOO_OLD_TOKEN, token=_token(0, after)) from None
    if page.after is None:
        return Listing(page)
    return Listing(page, _token(page.version, page.after), page.rest if selection.match is None else None)


def _single(store: ObjectStore, key: Key, match: Match | None) -> Page:
    record = store.get(key)
    found = [record] if record is not None and (match is None or match(record)) else []
    return Page(found, store.version)


def _moment(store: ObjectStore, options: ListOptions) -> tuple[Key | None, int | None]:
    """Return the key to go on behind and the version to read at; None is the newest."""
    if options.continuation:
        if options.resource_version not in ("", "0"):
            raise status.bad_request("specifying resource version is not allowed when using continue")
        version, after = _read_token(options.continuation)
        return after, version or None
    match options.resource_version_match:
        case "":
            pass
        case "Exact" | "NotOlderThan" if not options.resource_version:
            raise _invalid_options(
                "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
            )
        case "Exact" if options.resource_version == "0":
            raise _invalid_options(
                "resourceVersionMatch",
                'resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
            )
        case "Exact" | "NotOlderThan":
            pass
        case word:
            raise status.bad_request(f'resourceVersionMatch: Unsupported value: "{word}"')
    version = _version(options.resource_version)
    if version > store.version:
        body = status.status(
            504,
            "Timeout",
            f"Too large resource version: {version}, current: {store.version}",
            {
                "retryAfterSeconds": 1,
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            },
        )
        raise InvalidArgument(str(body["message"]), status=body)
    return None, version if options.resource_version_match == "Exact" else None


def _version(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise _invalid_value("resourceVersion", text, "strconv.ParseUint: parsing: invalid syntax")
    return int(text)


def _invalid_options(field: str, why: str) -> InvalidArgument:
    return _invalid([status.forbidden_field(field, why)])


def _invalid_value(field: str, value: str, why: str) -> InvalidArgument:
    return _invalid([status.invalid(field, value, why)])


def _invalid(errors: Sequence[status.FieldError]) -> InvalidArgument:
    message = f'ListOptions.meta.k8s.io "" is invalid: {errors[0]}'
    details = {"group": "meta.k8s.io", "kind": "ListOptions", "causes": [error.cause() for error in errors]}
    return InvalidArgument(message, status=status.status(422, "Invalid", message, details))


def _token(version: int, after: Key) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": list(after)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Key]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        resource, namespace, name = (str(part) for part in found["start"])
        return int(found["rv"]), Key(resource, namespace, name)
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise status.bad_request(f"continue key is not valid: {error}") from None


@dataclass(frozen=True, slots=True)
class Seen:
    """One event for a watcher. A bookmark has no record."""

    type: str
    record: Record | None
    version: int
    initial_end: bool = False


async def watching(
    store: ObjectStore,
    collection: str,
    resource: Resource,
    namespace: str,
    name: str,
    options: ListOptions,
    view: View,
) -> AsyncGenerator[list[Seen], None]:
    """Yield what happens, in batches, until `timeout_seconds` are over; endless without.

    Raises InvalidArgument before the first batch, and Expired whenever events would be lost.
    """
    selection = Selection.parse(resource, options.labels, options.fields, view)
    name = name or selection.name
    initial = _wants_initial(options)
    since = store.version if initial or not options.resource_version else _version(options.resource_version)
    if options.resource_version == "0" or (
        options.send_initial_events is False and options.resource_version in ("", "0")
    ):
        since = store.version
    loop = asyncio.get_running_loop()
    end = loop.time() + options.timeout_seconds if options.timeout_seconds else None
    with closing(store.watch(collection, namespace, since=since, name=name, match=selection.match)) as watch:
        first = _initial(store, collection, namespace, name, selection.match, options) if initial else []
        yield first
        mark = loop.time() + BOOKMARK_SECONDS
        while True:
            now = loop.time()
            if end is not None and now >= end:
                return
            wait = min(
                mark - now if options.bookmarks else BOOKMARK_SECONDS,
                end - now if end is not None else BOOKMARK_SECONDS,
            )
            try:
                changes = (
                    await asyncio.wait_for(watch.batch(), max(wait, 0.001))
                    if options.bookmarks or end
                    else await watch.batch()
                )
            except TimeoutError:
                if options.bookmarks and loop.time() >= mark:
                    mark = loop.time() + BOOKMARK_SECONDS
                    yield [Seen("BOOKMARK", None, watch.version)]
                continue
            yield [Seen(kind, change.shown(kind), change.version) for kind, change in changes]


def _wants_initial(options: ListOptions) -> bool:
    if options.send_initial_events is not None:
        if options.resource_version_match != "NotOlderThan":
            raise _invalid_options(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )
        return options.send_initial_events
    if options.resource_version_match:
        raise _invalid_options(
            "resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    return options.resource_version in ("", "0")


def _initial(
    store: ObjectStore, collection: str, namespace: str, name: str, match: Match | None, options: ListOptions
) -> list[Seen]:
    page = store.list(collection, namespace, match=match)
    found = [Seen("ADDED", r, r.version) for r in page.records if not name or r.key.name == name]
    if options.send_initial_events and options.bookmarks:
        found.append(Seen("BOOKMARK", None, page.version, initial_end=True))
    return found


def bookmark(resource: Resource, seen: Seen) -> JSONObject:
    """Return the object of a bookmark event."""
    metadata: JSONObject = {"resourceVersion": str(seen.version), "creationTimestamp": None}
    if seen.initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
