"""The firewall through libnftables: text in, one atomic transaction, words out (`man 3 libnftables`, `man 8 nft`).

The library is Debian's `libnftables1`, loaded when the first `Nftables` is made. Everything in one `run` takes effect
together or not at all. A context is not safe for two threads, so each `Nftables` holds a lock.
"""

import ctypes
import json
import threading
from typing import Any, Self

LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4
_OUTPUT_HANDLE = 1 << 3


class NftablesError(OSError):
    """The library or the kernel refused a ruleset; the text is theirs."""


class NftablesMissingError(OSError):
    """libnftables is not installed."""


class Nftables:
    """A libnftables context of the calling thread's network namespace. Close it.

    Raises NftablesMissingError when the library cannot be loaded.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NftablesMissingError(f"{LIBRARY} cannot be loaded: {error}") from error
        self._declare()
        self._lock = threading.Lock()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftablesError("libnftables gives no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def _declare(self) -> None:
        library, context = self._library, ctypes.c_void_p
        library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], context
        library.nft_ctx_free.argtypes, library.nft_ctx_free.restype = [context], None
        library.nft_run_cmd_from_buffer.argtypes = [context, ctypes.c_char_p]
        library.nft_ctx_output_set_flags.argtypes = [context, ctypes.c_uint]
        library.nft_ctx_output_set_flags.restype = None
        for name in ("buffer_output", "buffer_error"):
            getattr(library, f"nft_ctx_{name}").argtypes = [context]
        for name in ("output", "error"):
            function = getattr(library, f"nft_ctx_get_{name}_buffer")
            function.argtypes, function.restype = [context], ctypes.c_char_p

    def run(self, commands: str) -> None:
        """Carry out commands (`man 8 nft`, one per line) as one transaction.

        Raises NftablesError with what nft would have printed.
        """
        self._run(commands, 0)

    def list_text(self, what: str) -> str:
        """Return `nft list WHAT` as nft prints it."""
        return self._run(f"list {what}", 0)

    def list_json(self, what: str) -> list[dict[str, Any]]:
        """Return `nft -j -a list WHAT` without the leading metainfo (`man 5 libnftables-json`)."""
        items: list[dict[str, Any]] = json.loads(self._run(f"list {what}", _OUTPUT_JSON | _OUTPUT_HANDLE))["nftables"]
        return [item for item in items if "metainfo" not in item]

    def tables(self) -> list[tuple[str, str]]:
        """Return (family, name) of every table."""
        return [(item["table"]["family"], item["table"]["name"]) for item in self.list_json("tables")]

    def _run(self, commands: str, flags: int) -> str:
        with self._lock:
            if self._context is None:
                raise NftablesError("this libnftables context is closed")
            self._library.nft_ctx_output_set_flags(self._context, flags)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Both buffers are read each time: reading is what empties them.
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            said = self._library.nft_ctx_get_error_buffer(self._context) or b""
            if failed:
                text = said.decode("utf-8", "replace").strip()
                raise NftablesError(text or f"nft refused: {commands.splitlines()[0] if commands else ''}")
            return str(output.decode("utf-8", "replace"))

    def close(self) -> None:
        """Free the context; twice is fine."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
