"""What every namespace has: the ServiceAccount `default`, and the ConfigMap `kube-root-ca.crt` to trust the API by.

Both come back when somebody deletes them (kubernetes.io "Service Accounts").
"""

from kestrel.base.errors import AlreadyExists, NotFound, PermissionDenied
from kestrel.kube.client import Client
from kestrel.kube.client.informer import Change
from kestrel.kube.controllers.base import Loop

ACCOUNT = "default"
ROOTS = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class Accounts(Loop[str]):
    """Keeps the default account and the trusted roots of each namespace. `roots` is the PEM text of the CA."""

    def __init__(self, client: Client, roots: str) -> None:
        super().__init__(client)
        self._roots = roots
        self._namespaces = self.follow("namespaces", lambda change: (change.key[1],))
        self._accounts = self.follow("serviceaccounts", _namespace_of, fields=f"metadata.name={ACCOUNT}")
        self._maps = self.follow("configmaps", _namespace_of, fields=f"metadata.name={ROOTS}")

    async def sync(self, key: str) -> None:
        """Make what is missing in a namespace, and mend what was changed."""
        namespace = self._namespaces.get(key)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return
        try:
            if self._accounts.get(ACCOUNT, key) is None:
                await self._account(key)
            await self._trust(key)
        except (AlreadyExists, NotFound, PermissionDenied):
            return  # somebody was faster, or the namespace is on its way out: its next event decides

    async def _account(self, namespace: str) -> None:
        metadata = {"name": ACCOUNT, "namespace": namespace}
        await self.client.create(
            "serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        )

    async def _trust(self, namespace: str) -> None:
        known, data = self._maps.get(ROOTS, namespace), {"ca.crt": self._roots}
        if known is None:
            metadata = {
                "name": ROOTS,
                "namespace": namespace,
                "annotations": {"kubernetes.io/description": DESCRIPTION},
            }
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            await self.client.create("configmaps", body)
        elif known.get("data") != data:
            await self.client.patch("configmaps", ROOTS, {"data": data}, namespace)


def _namespace_of(change: Change) -> tuple[str, ...]:
    return (change.key[0],)
