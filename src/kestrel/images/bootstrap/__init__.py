"""Base images out of Debian packages, for machines that reach a Debian mirror and no registry.

The machine's own apt sources say where packages come from; gpgv and sha256 say that they are the right ones; no
maintainer script runs. The same packages give the same digests.
"""

from kestrel.images.bootstrap.build import Request, bootstrap
from kestrel.images.bootstrap.model import (
    DEBIAN,
    MINIMAL,
    PYTHON,
    VARIANTS,
    Bootstrapped,
    BuiltLayer,
    Progress,
    Report,
    Variant,
    variant,
)

__all__ = [
    "DEBIAN",
    "MINIMAL",
    "PYTHON",
    "VARIANTS",
    "Bootstrapped",
    "BuiltLayer",
    "Progress",
    "Report",
    "Request",
    "Variant",
    "bootstrap",
    "variant",
]
