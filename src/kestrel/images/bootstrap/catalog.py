"""Every package the machine's sources offer, found by name or by what it provides.

A Packages file has 60,000 paragraphs of which a bootstrap reads a hundred, so paragraphs stay text until somebody
asks for them. The newest version of a name wins, whatever suite it is in; pinning is not read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from kestrel.base.errors import InvalidArgument, NotFound, nearest
from kestrel.images.bootstrap import versions
from kestrel.images.bootstrap.control import Group, Relation, relations, stanza


@dataclass(frozen=True)
class Package:
    """One binary package of one archive: `fields` are its paragraph's, `base` the archive's address."""

    fields: dict[str, str]
    base: str

    @property
    def name(self) -> str:
        """Return the package's name."""
        return self.fields["package"]

    @property
    def version(self) -> str:
        """Return the package's version."""
        return self.fields["version"]

    @property
    def essential(self) -> bool:
        """Tell whether others may rely on it without a declared dependency."""
        return self.fields.get("essential") == "yes"

    @cached_property
    def depends(self) -> tuple[Group, ...]:
        """Return Pre-Depends and Depends."""
        return relations(self.fields.get("pre-depends", "")) + relations(self.fields.get("depends", ""))

    @cached_property
    def conflicts(self) -> tuple[Relation, ...]:
        """Return Conflicts and Breaks."""
        both = relations(self.fields.get("conflicts", "")) + relations(self.fields.get("breaks", ""))
        return tuple(relation for group in both for relation in group)

    @cached_property
    def provides(self) -> dict[str, str]:
        """Return the names it stands in for, each with a version, empty when unversioned."""
        return {r.name: r.version for group in relations(self.fields.get("provides", "")) for r in group}

    def meets(self, relation: Relation) -> bool:
        """Tell whether this package is what `relation` asks for.

        A versioned relation is met by a provided name only when that is provided with a version (Policy 7.5).
        """
        if self.name == relation.name and relation.admits(self.version):
            return True
        if relation.name not in self.provides:
            return False
        provided = self.provides[relation.name]
        return not relation.operator or bool(provided and relation.admits(provided))

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


class Catalog:
    """Packages by name, newest first. Fill it with `add`, then ask."""

    def __init__(self, arch: str) -> None:
        self._arch = arch
        self._blocks: dict[str, list[tuple[str, str]]] = {}
        self._providers: dict[str, set[str]] = {}
        self._essential: set[str] = set()
        self._read: dict[str, list[Package]] = {}

    def add(self, text: str, base: str) -> int:
        """Take in one Packages file of the archive at `base`; returns how many packages it had."""
        count = 0
        for block in text.split("\n\n"):
            if not block.startswith("Package: "):
                continue
            count += 1
            name = block[9 : block.find("\n")].strip()
            self._blocks.setdefault(name, []).append((block, base))
            if "\nEssential: yes" in block:
                self._essential.add(name)
            start = block.find("\nProvides: ")
            if start >= 0:
                line = block[start + 11 : block.find("\n", start + 1) if "\n" in block[start + 1 :] else None]
                for item in line.split(","):
                    self._providers.setdefault(item.split("(")[0].split(":")[0].strip(), set()).add(name)
        return count

    def __len__(self) -> int:
        return len(self._blocks)

    def named(self, name: str) -> list[Package]:
        """Return every version of a package, the newest first; empty when there is none."""
        if name not in self._read:
            packages = [Package(stanza(block), base) for block, base in self._blocks.get(name, ())]
            right = [p for p in packages if p.fields.get("architecture") in (self._arch, "all")]
            self._read[name] = sorted(right, key=lambda p: versions.key(p.version), reverse=True)
        return self._read[name]

    def get(self, wanted: str) -> Package:
        """Return the package a person names: `name` or `name=version`.

        Raises NotFound with the nearest name, or with the versions there are.
        """
        name, _, version = wanted.partition("=")
        found = self.named(name)
        if not found:
            raise self._unknown(name)
        for package in found:
            if not version or package.version == version:
                return package
        raise NotFound(
            f"package {name} has no version {version}", hint=f"there is {', '.join(p.version for p in found)}"
        )

    def _unknown(self, name: str) -> NotFound:
        if name in self._providers:
            return NotFound(
                f"{name} is a virtual package",
                hint=f"name one that provides it: {', '.join(sorted(self._providers[name]))}",
            )
        like = nearest(name, self._blocks)
        return NotFound(f"no package is named {name}", hint=f"did you mean {like}?" if like else None, package=name)

    def candidates(self, relation: Relation) -> Iterator[Package]:
        """Yield what meets a relation: real packages of that name, then providers by priority and name."""
        for package in self.named(relation.name):
            if relation.admits(package.version):
                yield package
        order = {"required": 0, "important": 1, "standard": 2}
        providers = [p for name in self._providers.get(relation.name, ()) for p in self.named(name)[:1]]
        providers.sort(key=lambda p: (order.get(p.fields.get("priority", ""), 3), p.name))
        for package in providers:
            if package.name != relation.name and package.meets(relation):
                yield package

    def essential(self) -> list[str]:
        """Return the names of the packages whose newest version is marked Essential, sorted."""
        return sorted(n for n in self._essential if self.named(n) and self.named(n)[0].essential)


def names(items: Iterable[str]) -> tuple[str, ...]:
    """Check and sort package names a person gave: `name` or `name=version`. Raises InvalidArgument."""
    result = []
    for item in items:
        name = item.strip()
        if name and not all(c.isalnum() or c in "+-.=:~" for c in name):
            raise InvalidArgument(f"not a package name: {name!r}")
        if name:
            result.append(name)
    return tuple(sorted(set(result)))
