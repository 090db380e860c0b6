#!/usr/bin/env python3
"""Write the protobuf field numbers of Kubernetes' messages into `src/kestrel/kube/api/data/protobuf.json`.

Development-time only. Reads `generated.proto` of the released Go modules `k8s.io/api` and `k8s.io/apimachinery` (fetch
them with `go mod download -json k8s.io/api@v0.33.4 k8s.io/apimachinery@v0.33.4`, which prints their folders) and keeps
the facts of the wire alone: message, field number, wire type, and from the struct tags of the Go types beside it the
JSON name, and whether a zero is left out of JSON (protobuf always sends a field that is no pointer). No text of theirs
is kept.

    python tools/generate_protobuf.py <folder of k8s.io/api> <folder of k8s.io/apimachinery> [--verify]

`--verify` decodes and encodes every sample that the api module ships as both protobuf and JSON.

A field is `number:name:type`. Types: `s` string, `y` bytes, `i` integer, `b` boolean, `d` double, `@package.Message`
message, in front of that `*` repeated, `{` map from string; `-` behind a type: zero means absent. An empty name means
inlined: the message's fields belong to the message around it, as the Go types embed it.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src/kestrel/kube/api/data/protobuf.json"

PACKAGES = {
    "api": (
        "core/v1 apps/v1 batch/v1 rbac/v1 policy/v1 networking/v1 autoscaling/v1 autoscaling/v2 authentication/v1 "
        "authorization/v1 coordination/v1 events/v1 storage/v1 scheduling/v1 discovery/v1 node/v1 certificates/v1 "
        "admissionregistration/v1"
    ).split(),
    "apimachinery": "pkg/apis/meta/v1 pkg/runtime pkg/api/resource pkg/util/intstr".split(),
}

WIRE = {
    "string": "s",
    "bytes": "y",
    "int32": "i",
    "int64": "i",
    "uint32": "i",
    "uint64": "i",
    "bool": "b",
    "double": "d",
}

_MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^\s*(?:(optional|repeated|required)\s+([.\w]+)|(map)<string,\s*([.\w]+)>)\s+(\w+)\s*=\s*(\d+)", re.MULTILINE
)
_STRUCT = re.compile(r"^type (\w+) struct \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_TAG = re.compile(r'(\S+)\s+`json:"([^",]*)([^"]*)"[^`\n]*?protobuf:"\w+,(\d+)')
_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)


def short(package: str) -> str:
    """A package name as the table has it: `core.v1`, `meta.v1`, `runtime`."""
    return re.sub(r"^\.?k8s\.io\.(?:api|apimachinery\.pkg(?:\.apis|\.api|\.util)?)\.", "", package)


def wire_type(package: str, word: str) -> str:
    """The type letter of a proto type, or a reference to a message."""
    if word in WIRE:
        return WIRE[word]
    return "@" + (short(word) if word.startswith(".") else f"{package}.{word}")


Tags = dict[tuple[str, int], tuple[str, bool]]
"""JSON name, and whether zero means absent, by struct and field number."""


def tags_of(folder: Path) -> Tags:
    """What the struct tags of a package's Go files say."""
    found: Tags = {}
    for path in sorted(folder.glob("*.go")):
        if path.name.endswith("_test.go") or "generated" in path.name:
            continue
        for struct, body in _STRUCT.findall(path.read_text()):
            for go_type, name, options, number in _TAG.findall(body):
                droppable = "omitempty" in options and not go_type.startswith("*")
                found[struct, int(number)] = (name, droppable)
    return found


def fields_of(struct: str, package: str, body: str, tags: Tags) -> list[str]:
    """The fields of one message in the table's form, by number."""
    found = []
    for label, word, is_map, value, proto_name, number in _FIELD.findall(body):
        prefix = "{" if is_map else "*" if label == "repeated" else ""
        kind = prefix + wire_type(package, value if is_map else word)
        name, droppable = tags.get((struct, int(number)), (proto_name, False))
        drop = "-" if droppable and len(kind) == 1 else ""
        found.append((int(number), f"{number}:{name}:{kind}{drop}"))
    return [text for _, text in sorted(found)]


def messages_of(folder: Path) -> dict[str, list[str]]:
    """The messages of one package by name."""
    path = folder / "generated.proto"
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    found = _PACKAGE.search(text)
    if found is None:
        raise SystemExit(f"no package in {path}")
    package, tags = short(found.group(1)), tags_of(folder)
    return {f"{package}.{name}": fields_of(name, package, body, tags) for name, body in _MESSAGE.findall(text)}


def rendered(messages: dict[str, list[str]]) -> str:
    """JSON with one message per line."""
    lines = [f"{json.dumps(name)}:{json.dumps(' '.join(fields))}" for name, fields in sorted(messages.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def verify(folder: Path) -> int:
    """Compare our decoding of the published samples with their JSON; returns the number of differences."""
    sys.path.insert(0, str(ROOT / "src"))
    from kestrel.kube.api import protobuf

    wrong = done = 0
    for sample in sorted((folder / "testdata/HEAD").glob("*.pb")):
        expected = json.loads(sample.with_suffix(".json").read_text())
        if not protobuf.knows(expected.get("apiVersion", ""), expected.get("kind", "")):
            continue
        done += 1
        data = sample.read_bytes()
        found = protobuf.decode_body(data)
        again = protobuf.decode_body(protobuf.encode(found))
        for what, value in (("decoded", found), ("round trip", again)):
            if value != expected:
                wrong += 1
                sys.stderr.write(f"{sample.name}: {what}: {difference(expected, value, '')}\n")
    sys.stderr.write(f"{done} samples, {wrong} differences\n")
    return wrong


def difference(left: Any, right: Any, path: str) -> str:
    """The first place at which two documents differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            if left.get(key) != right.get(key):
                return difference(left.get(key), right.get(key), f"{path}.{key}")
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, two) in enumerate(zip(left, right, strict=True)):
            if one != two:
                return difference(one, two, f"{path}[{index}]")
    return f"{path}: {left!r} is not {right!r}"


def main() -> int:
    """Write the table; with `--verify`, prove it."""
    parser = argparse.ArgumentParser(description="Write the protobuf field numbers of Kubernetes' messages.")
    parser.add_argument("api", type=Path)
    parser.add_argument("apimachinery", type=Path)
    parser.add_argument("--verify", action="store_true")
    options = parser.parse_args()
    messages: dict[str, list[str]] = {}
    for module, packages in PACKAGES.items():
        for package in packages:
            messages.update(messages_of(getattr(options, module) / package))
    TARGET.write_text(rendered(messages))
    sys.stderr.write(f"wrote {len(messages)} messages\n")
    return 1 if options.verify and verify(options.api) else 0


if __name__ == "__main__":
    sys.exit(main())
