"""kubectl in a namespace of a test's own, in the Kestrel that the session shares."""

import secrets
from collections.abc import Iterator

import pytest

from kestrel.testing.instance import Instance
from kestrel.testing.kubectl import IMAGE, PROGRAM, Kubectl


@pytest.fixture(scope="session")
def everywhere(shared: Instance) -> Kubectl:
    """The ordinary kubectl, in the namespace `default`."""
    if PROGRAM is None:
        pytest.skip("kubectl is not installed")
    shared("tag", "box", IMAGE)
    return Kubectl.of(shared)


@pytest.fixture
def kube(everywhere: Kubectl) -> Iterator[Kubectl]:
    """The ordinary kubectl in a new namespace, which is deleted afterwards with all that is in it."""
    name = f"test-{secrets.token_hex(3)}"
    spaces = "/api/v1/namespaces"
    code, answer = everywhere.api.call("POST", spaces, {"metadata": {"name": name}})
    assert code == 201, answer
    yield everywhere.within(name)
    everywhere.api.call("DELETE", f"{spaces}/{name}")
    for pod in everywhere.within(name).objects("pods"):
        everywhere.api.call("DELETE", f"{spaces}/{name}/pods/{pod['metadata']['name']}?gracePeriodSeconds=0")
