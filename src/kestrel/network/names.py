"""Who is called what on the bridge: a table in memory, filled from the leases, read by the resolver."""

from collections import defaultdict
from collections.abc import Iterable


def fold(name: str) -> str:
    """Return a name as it is compared: lower case, without the root's dot (RFC 4343)."""
    return name.rstrip(".").lower()


class Names:
    """Names to addresses and back. Several sandboxes may share a name; all their addresses are answers."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[tuple[str, ...], str]] = {}
        self._addresses: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._owners: dict[str, str] = {}

    def put(self, owner: str, names: Iterable[str], address: str) -> None:
        """Say that `owner` has these names and this address; what was said of it before is forgotten."""
        self.drop(owner)
        folded = tuple(dict.fromkeys(fold(name) for name in names if fold(name)))
        self._names[owner] = (folded, address)
        self._owners[address] = owner
        for name in folded:
            self._addresses[name][owner] = address

    def drop(self, owner: str) -> None:
        """Forget an owner; fine when it is unknown."""
        names, address = self._names.pop(owner, ((), ""))
        if self._owners.get(address) == owner:
            del self._owners[address]
        for name in names:
            self._addresses[name].pop(owner, None)
            if not self._addresses[name]:
                del self._addresses[name]

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a name, in the order in which they were made known."""
        return list(dict.fromkeys(self._addresses[fold(name)].values())) if fold(name) in self._addresses else []

    def name_of(self, address: str) -> str:
        """Return the first name of who has an address, empty when nobody has."""
        names, _ = self._names.get(self._owners.get(address, ""), ((), ""))
        return names[0] if names else ""
