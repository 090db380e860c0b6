"""What can be chosen about the registry."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes in bytes, times in seconds."""

    sparse: bool = False
    """Take manifests whose children were never pushed (an index of which only some platforms are mirrored)."""
    htpasswd: "Path | None" = None
    """People with bcrypt passwords, beside the accounts that are made here."""
    url: str = ""
    """How clients reach this registry when a proxy stands before it; else their own word is taken (`Host`)."""
    manifest_cache: int = 64 * 1024 * 1024
    """Memory for manifests that are ready to be sent."""
    idle_seconds: float = 60.0
    """How long an upload may be silent before its request is given up; what came is kept."""
    fresh_seconds: float = 60.0
    """How long the pull-through cache does not ask again for a tag, or whether there is one."""
    page: int = 1000
    """Entries of one page of tags, repositories or referrers when the client does not say."""
    largest_page: int = 10_000
    unnamed_seconds: float = 24 * 3600.0
    """How long a pushed blob is kept that no manifest names (yet)."""
    undo_seconds: float = 24 * 3600.0
    """How long what was deleted can be restored, and is therefore kept."""
    upload_seconds: float = 7 * 24 * 3600.0
    """How long an unfinished upload can be resumed."""
