#!/usr/bin/env python3
"""Write the field schemas of the served kinds into `src/kestrel/kube/api/data`.

Runs whenever Kestrel is built or installed (`build_hook.py`); the files are not kept in the tree. Reads the JSON
schemas that the Python package `kubernetes-validate` carries for one minor version, keeps what the rows of
`kestrel.kube.api.scheme` reach, undoes the four ways in which those schemas deviate from Kubernetes' OpenAPI
(`#/$defs/` references, `null` as a second type, `oneOf` for Quantity and IntOrString, `enum` on apiVersion and kind),
and writes two files in the compact form `kestrel.kube.api.schemas` reads:

    schemas.json       types, required fields, list types and keys, patch strategies, group-version-kinds
    descriptions.json  the texts, by definition and field; loaded for `explain` and OpenAPI only

    python tools/generate_schemas.py            after adding a kind to the table
    python tools/generate_schemas.py --check    fails when the files are not what would be written
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "src/kestrel/kube/api/data"
MINOR = "1.33"
sys.path.insert(0, str(ROOT / "src"))

from kestrel.kube.api.scheme import EXTRA_KINDS, RESOURCES  # noqa: E402 - the path above makes it importable

Definitions = dict[str, dict[str, Any]]
REF = "#/$defs/"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
SCALARS = {"string": "s", "integer": "i", "number": "n", "boolean": "b"}
EXTENSIONS = {
    "x-kubernetes-list-type": "list",
    "x-kubernetes-list-map-keys": "keys",
    "x-kubernetes-patch-strategy": "strategy",
    "x-kubernetes-patch-merge-key": "merge",
    "x-kubernetes-map-type": "map",
}


def read_definitions(minor: str) -> Definitions:
    """Every definition of one Kubernetes minor version."""
    # The package is found but not imported, and may be a wheel on the path: installing its 17,000 files takes longer
    # than everything else together.
    package = find_spec("kubernetes_validate")
    get_data = getattr(package and package.loader, "get_data", None)
    if package is None or not package.submodule_search_locations or get_data is None:
        raise SystemExit("the Python package kubernetes-validate is needed to make the schemas: see `./dev setup`")
    folder = Path(package.submodule_search_locations[0], "kubernetes-json-schema", f"v{minor}.0-local")
    found: Definitions = json.loads(get_data(str(folder / "_definitions.json")))["$defs"]
    return found


def wanted_kinds() -> set[tuple[str, str, str]]:
    """Group, version and kind of everything that travels in a body."""
    found = {(kind.group, kind.version, kind.kind) for kind in EXTRA_KINDS}
    for row in RESOURCES:
        found.add((row.group, row.version, row.kind))
        if row.stored:
            found.add((row.group, row.version, row.collection_kind))
        for sub in row.subresources:
            kind = row.subresource_gvk(sub)
            found.add((kind.group, kind.version, kind.kind))
    return found


def kinds_of(definition: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The group-version-kinds a definition is the schema of."""
    entries = definition.get("x-kubernetes-group-version-kind", ())
    return [(entry["group"], entry["version"], entry["kind"]) for entry in entries]


def reachable(definitions: Definitions, wanted: set[tuple[str, str, str]]) -> list[str]:
    """Names of the definitions that wanted kinds use, directly or not, sorted."""
    todo = [name for name, body in definitions.items() if wanted.intersection(kinds_of(body))]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(references(definitions[name]))
    return sorted(found)


def references(node: Any) -> list[str]:
    """Names of the definitions a schema refers to."""
    if isinstance(node, list):
        return [name for item in node for name in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].removeprefix(REF)] if isinstance(node.get("$ref"), str) else []
    return own + [name for value in node.values() for name in references(value)]


def compact_type(schema: dict[str, Any]) -> str:
    """A type as one word: see `kestrel.kube.api.schemas` for the letters."""
    if "$ref" in schema:
        return "@" + str(schema["$ref"]).removeprefix(REF)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(word for word in kind if word != "null")
    if kind == "array":
        return "[" + (compact_type(schema["items"]) if "items" in schema else "x")
    if kind == "object":
        values = schema.get("additionalProperties")
        return "{" + (compact_type(values) if isinstance(values, dict) else "x")
    if kind is None:
        return "x"
    word = SCALARS[kind]
    return f"{word}:{schema['format']}" if "format" in schema else word


def compact_field(schema: dict[str, Any]) -> Any:
    """A field: its type alone, or the type and its list and patch extensions."""
    extensions = {short: schema[long] for long, short in EXTENSIONS.items() if long in schema}
    if compact_type(schema)[0] not in "[{@":
        extensions = {}  # a list type on a byte string means nothing
    return [compact_type(schema), extensions] if extensions else compact_type(schema)


def compact_definition(name: str, body: dict[str, Any], wanted: set[tuple[str, str, str]]) -> dict[str, Any]:
    """One definition in the form `schemas.json` keeps."""
    if name == QUANTITY:
        return {"type": "q"}
    if name == INT_OR_STRING:
        return {"type": "s:int-or-string"}
    found: dict[str, Any] = {}
    kinds = [list(kind) for kind in kinds_of(body) if kind in wanted]
    if kinds:
        found["gvk"] = kinds
    if "properties" not in body:
        return {**found, "type": compact_type(body)}
    found["fields"] = {field: compact_field(schema) for field, schema in sorted(body["properties"].items())}
    if body.get("required"):
        found["required"] = sorted(body["required"])
    if "x-kubernetes-map-type" in body:
        found["map"] = body["x-kubernetes-map-type"]
    return found


def compact_descriptions(body: dict[str, Any]) -> dict[str, str]:
    """The texts of one definition; its own is under the empty name."""
    texts = {"": body.get("description", "")}
    texts.update({field: schema.get("description", "") for field, schema in sorted(body.get("properties", {}).items())})
    return {field: text for field, text in texts.items() if text}


def rendered(content: dict[str, Any]) -> str:
    """JSON with one definition per line, so that a change of one is a change of one line."""
    lines = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def generate(minor: str) -> dict[str, str]:
    """File contents by file name."""
    definitions, wanted = read_definitions(minor), wanted_kinds()
    names = reachable(definitions, wanted)
    schemas: dict[str, Any] = {"": {"kubernetes": minor}}
    schemas.update({name: compact_definition(name, definitions[name], wanted) for name in names})
    texts = {name: compact_descriptions(definitions[name]) for name in names}
    return {"schemas.json": rendered(schemas), "descriptions.json": rendered(texts)}


def paths() -> list[Path]:
    """The files that are written."""
    return [DATA / "schemas.json", DATA / "descriptions.json"]


def write(minor: str = MINOR) -> list[str]:
    """Write what is missing or not what it should be; returns the names of those files."""
    changed = stale(minor)
    for name, text in changed.items():
        (DATA / name).write_text(text)
    return list(changed)


def stale(minor: str) -> dict[str, str]:
    """File contents that differ from what is there, by name."""
    found = generate(minor)
    return {name: text for name, text in found.items() if _present(DATA / name) != text}


def _present(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> int:
    """Write the files, or compare with them."""
    parser = argparse.ArgumentParser(description="Write the field schemas of the served kinds.")
    parser.add_argument("--minor", default=MINOR, help="Kubernetes minor version to read (default %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare with the files there are, and write nothing")
    options = parser.parse_args()
    found = list(stale(options.minor)) if options.check else write(options.minor)
    sys.stderr.write(f"{'stale' if options.check else 'wrote'}: {', '.join(found) or 'nothing'}\n")
    return 1 if found and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
