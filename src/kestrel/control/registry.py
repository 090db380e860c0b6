"""The verb for the registry's owner; what its words mean is the administration's business."""

from typing import Any

from kestrel.control.requests import RegistryRequest
from kestrel.control.services import Emit, Services, Verbs


async def registry(services: Services, request: RegistryRequest, emit: Emit) -> Any:
    """Accounts, grants, tags, collections."""
    options = {
        "password": request.password,
        "grants": request.grants,
        "label": request.label,
        "days": request.days,
        "dry_run": request.dry_run,
        "untagged": request.untagged,
        "default": request.default,
    }
    return await services.registry(request.words, options, emit)


VERBS: Verbs = {"registry": (RegistryRequest, registry)}
