"""`login` and `logout`: credentials tried at the registry, then kept where docker keeps them.

That is the helper that docker's `config.json` names for the host, its `credsStore`, or else the file itself, whose
other content stays as it is (docker/cli's `configfile`). Podman, skopeo and docker read the same.
"""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from kestrel.base.errors import InvalidArgument, NotFound
from kestrel.base.files import locked, private_directory, replace
from kestrel.distribution.client import Client
from kestrel.distribution.credentials import Credential, DockerConfig, Fixed, ask_helper, canonical, server_key


class Logins:
    """Who this node is to registries. `path` is docker's `config.json`."""

    def __init__(self, client: Client, path: Path) -> None:
        self._client = client
        self._path = path

    async def login(self, domain: str, username: str, password: str) -> str:
        """Check credentials and keep them; returns where. Raises Unauthenticated when the registry refuses them."""
        if not username or not password:
            raise InvalidArgument("a login needs a user name and a password")
        credential = Credential(username=username, password=password)
        await self._client.with_credentials(Fixed(domain, credential)).check(domain)
        config, key = DockerConfig.load(self._path), server_key(domain)
        if helper := config.helper(domain):
            secret = {"ServerURL": key, "Username": username, "Secret": password}
            await ask_helper(helper, "store", json.dumps(secret).encode(), key)
            return f"docker-credential-{helper}"
        entry = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
        await asyncio.to_thread(self._rewrite, domain, {key: entry})
        return str(self._path)

    async def logout(self, domain: str) -> None:
        """Forget the credentials of a registry. Raises NotFound when there are none."""
        config = DockerConfig.load(self._path)
        if helper := config.helper(domain):
            key = server_key(domain)
            await ask_helper(helper, "erase", key.encode(), key)
            return
        if not any(canonical(key) == canonical(domain) for key in config.auths):
            raise NotFound(f"not logged in to {domain}", hint=f"{self._path} has no entry for it")
        await asyncio.to_thread(self._rewrite, domain, {})

    def _rewrite(self, domain: str, entries: dict[str, Any]) -> None:
        """Replace the entries of a registry; DockerConfig has read the file before, so it is JSON of the right form."""
        private_directory(self._path.parent)
        with locked(self._path.with_name(".config.json.lock")):
            raw = json.loads(self._path.read_bytes()) if self._path.exists() else {}
            kept = {
                key: entry for key, entry in (raw.get("auths") or {}).items() if canonical(key) != canonical(domain)
            }
            replace(self._path, json.dumps({**raw, "auths": {**kept, **entries}}, indent=2).encode())
