"""The loops that keep the cluster in order, one per module."""

from kestrel.kube.controllers.accounts import Accounts
from kestrel.kube.controllers.base import Controller, Controllers
from kestrel.kube.controllers.garbage import Garbage
from kestrel.kube.controllers.namespace import Namespaces
from kestrel.kube.controllers.storage import Storage

__all__ = ["Controller", "Controllers", "Accounts", "Garbage", "Namespaces", "Storage"]
