"""The kubeconfig that makes plain `kubectl` work: ours in full below the data root, and one context in the user's.

A file of the user's is changed as little as can be: entries named as this Kestrel are put in or replaced, and the
current context is set only when there is none. `remove` takes exactly those entries out again.
"""

from pathlib import Path
from typing import Any

import yaml

from kestrel.base import files
from kestrel.base.errors import InvalidArgument

JSON = dict[str, Any]  # Any: a document of the user's


def merged(theirs: JSON, ours: JSON) -> JSON:
    """Return a document of the user's with our entries in it."""
    result = without(theirs, ours["current-context"])
    for section in ("clusters", "users", "contexts"):
        result[section] = [*(result.get(section) or []), *ours[section]]
    result["current-context"] = theirs.get("current-context") or ours["current-context"]
    return result


def without(theirs: JSON, name: str) -> JSON:
    """Return a document of the user's with the entries of that name taken out."""
    result = {"apiVersion": "v1", "kind": "Config", **theirs}
    for section in ("clusters", "users", "contexts"):
        result[section] = [entry for entry in theirs.get(section) or [] if entry.get("name") != name]
    if result.get("current-context") == name:
        result["current-context"] = ""
    return result


def install(path: Path, ours: JSON) -> None:
    """Put our entries into the user's file, made if there is none. Raises InvalidArgument when it is not YAML."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, merged(_read(path), ours))


def remove(path: Path, name: str) -> None:
    """Take our entries out of the user's file; a file that holds nothing else is deleted."""
    if not path.exists():
        return
    rest = without(_read(path), name)
    if any(rest[section] for section in ("clusters", "users", "contexts")):
        _write(path, rest)
    else:
        path.unlink()


def _read(path: Path) -> JSON:
    try:
        found = yaml.load(path.read_text(), Loader=yaml.CSafeLoader) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise InvalidArgument(
            f"{path} is not a kubeconfig: {error}", hint="mend or move it, or set KESTREL_KUBECONFIG to another file"
        ) from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path} is not a kubeconfig", hint="set KESTREL_KUBECONFIG to another file")
    return found


def _write(path: Path, value: JSON) -> None:
    files.replace(path, yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False).encode())
