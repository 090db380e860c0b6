"""Answers as bytes: objects, lists, Tables and bare metadata, by what the client accepts.

Objects leave as the bytes they are stored in: a list is those bytes joined, a watch event a few more around them. A
Table has its cells from `kube.api.tables` and its `object` cut out of the stored bytes; what a row needs beyond the
age of the object is kept with the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import yaml

from kestrel.kube.api import status, tables
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.apiserver.rules import Rules
from kestrel.kube.apiserver.selection import Listing, Seen, bookmark
from kestrel.kube.store import Record
from kestrel.kube.store.store import encode

OBJECT, TABLE, PARTIAL = "object", "table", "partial"
_META_GROUP = "meta.k8s.io"
_ACCEPTED = ("application/json", "application/yaml")


@dataclass(frozen=True, slots=True)
class Form:
    """How a client wants its answer."""

    kind: str = OBJECT
    version: str = "v1"
    yaml: bool = False
    include: str = "Metadata"

    @property
    def content_type(self) -> str:
        """The media type of answers in this form."""
        return "application/yaml" if self.yaml else "application/json"


def negotiate(accept: str, query: Mapping[str, str]) -> Form:
    """Choose the first form of an Accept header that we have; raises NotAcceptable (406)."""
    if not accept.strip():
        return Form()
    offers = sorted((_offer(text) for text in accept.split(",") if text.strip()), key=lambda offer: -offer[2])
    for media, parameters, _ in offers:
        found = _form(media, parameters, query)
        if found is not None:
            return found
    raise status.not_acceptable([*_ACCEPTED, "application/vnd.kubernetes.protobuf (requests only)"])


def _offer(text: str) -> tuple[str, dict[str, str], float]:
    media, *rest = (part.strip() for part in text.split(";"))
    parameters = dict(part.split("=", 1) for part in rest if "=" in part)
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return media.lower(), parameters, quality


def _form(media: str, parameters: Mapping[str, str], query: Mapping[str, str]) -> Form | None:
    if media not in ("application/json", "application/yaml", "application/*", "*/*"):
        return None
    as_yaml = media == "application/yaml"
    wanted = parameters.get("as")
    if wanted is None:
        return Form(yaml=as_yaml)
    version = parameters.get("v", "v1")
    if parameters.get("g") != _META_GROUP or version not in ("v1", "v1beta1"):
        return None
    if wanted == "Table":
        include = query.get("includeObject") or "Metadata"
        if include not in ("None", "Metadata", "Object"):
            raise status.bad_request(
                f'includeObject: Unsupported value: "{include}": supported values: None, Metadata, Object'
            )
        return Form(TABLE, version, as_yaml, include)
    if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return Form(PARTIAL, version, as_yaml)
    return None


class _Cut(msgspec.Struct):
    metadata: msgspec.Raw


_cut = msgspec.json.Decoder(_Cut).decode


class Printer:
    """Turns records into answers."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def one(self, resource: Resource, record: Record, form: Form, now: datetime) -> bytes:
        """Return one object."""
        if form.kind == TABLE:
            body = self._table(resource, [record], form, {"resourceVersion": str(record.version)}, now)
        elif form.kind == PARTIAL:
            body = self._partial(record, form)
        else:
            body = self._data(resource, record)
        return _finish(body, form)

    def many(self, resource: Resource, found: Listing, form: Form, now: datetime) -> bytes:
        """Return a list."""
        metadata: JSONObject = {"resourceVersion": str(found.page.version)}
        if found.continuation:
            metadata["continue"] = found.continuation
            if found.remaining is not None:
                metadata["remainingItemCount"] = found.remaining
        records = found.page.records
        if form.kind == TABLE:
            return _finish(self._table(resource, records, form, metadata, now), form)
        if form.kind == PARTIAL:
            kind, version = "PartialObjectMetadataList", f"{_META_GROUP}/{form.version}"
            parts = [self._partial(record, form) for record in records]
        else:
            kind, version = resource.collection_kind, resource.api_version
            parts = [self._data(resource, record) for record in records]
        head = encode({"apiVersion": version, "kind": kind, "metadata": metadata})
        return _finish(b'%b,"items":[%b]}' % (head[:-1], b",".join(parts)), form)

    def event(self, resource: Resource, seen: Seen, form: Form, now: datetime, *, first: bool = False) -> bytes:
        """Return one line of a watch."""
        if seen.record is None:
            body = self._bookmark(resource, seen, form)
        elif form.kind == TABLE:
            metadata = {"resourceVersion": str(seen.version)}
            body = self._table(resource, [seen.record], form, metadata, now, headers=first)
        elif form.kind == PARTIAL:
            body = self._partial(seen.record, form)
        else:
            body = self._data(resource, seen.record)
        return b'{"type":"%b","object":%b}\n' % (seen.type.encode(), body)

    def _bookmark(self, resource: Resource, seen: Seen, form: Form) -> bytes:
        obj = bookmark(resource, seen)
        if form.kind == TABLE:
            obj = {"kind": "Table", "apiVersion": f"{_META_GROUP}/{form.version}", "metadata": obj["metadata"]}
            obj |= {"columnDefinitions": [], "rows": []}
        elif form.kind == PARTIAL:
            obj |= {"kind": "PartialObjectMetadata", "apiVersion": f"{_META_GROUP}/{form.version}"}
        return encode(obj)

    def _data(self, resource: Resource, record: Record) -> bytes:
        if resource.storage is None:
            return record.data
        return encode(self._rules.presented(resource, record.copy()))

    def _partial(self, record: Record, form: Form) -> bytes:
        metadata = bytes(_cut(record.data).metadata)
        head = b'{"kind":"PartialObjectMetadata","apiVersion":"%b/%b","metadata":%b}'
        return head % (_META_GROUP.encode(), form.version.encode(), metadata)

    def _table(
        self,
        resource: Resource,
        records: list[Record],
        form: Form,
        metadata: JSONObject,
        now: datetime,
        *,
        headers: bool = True,
    ) -> bytes:
        stored = self._rules.stored_as(resource)
        rows: list[Any] = []
        for record in records:
            row: JSONObject = {"cells": tables.cells(stored, record.object, now)}
            if form.include == "Metadata":
                row["object"] = msgspec.Raw(self._partial(record, form))
            elif form.include == "Object":
                row["object"] = msgspec.Raw(self._data(resource, record))
            rows.append(row)
        table = {
            "kind": "Table",
            "apiVersion": f"{_META_GROUP}/{form.version}",
            "metadata": metadata,
            "columnDefinitions": tables.columns(stored) if headers else [],
            "rows": rows,
        }
        return msgspec.json.encode(table)


def _finish(body: bytes, form: Form) -> bytes:
    return to_yaml(body) if form.yaml else body


def to_yaml(body: bytes) -> bytes:
    """Return JSON as YAML."""
    text: str = yaml.dump(msgspec.json.decode(body), Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=True)
    return text.encode()
