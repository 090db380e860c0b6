"""Password hashes through libcrypt (`man 3 crypt`): bcrypt and whatever else an htpasswd file or /etc/shadow may hold.

Hashing is slow on purpose; the call leaves the interpreter's lock, so it belongs into a thread.
"""

import ctypes
import hmac
import os
from functools import cache

_DATA = 32768  # bytes of struct crypt_data (crypt.h)
_SETTING = 192  # CRYPT_GENSALT_OUTPUT_SIZE (crypt.h)
_BCRYPT = b"$2b$"
_COST = 10


def hash_password(password: str, cost: int = _COST) -> str:
    """Return a bcrypt hash with a fresh salt; `cost` is the logarithm of the rounds."""
    setting = ctypes.create_string_buffer(_SETTING)
    salt = os.urandom(16)
    made = _library().crypt_gensalt_rn(_BCRYPT, cost, salt, len(salt), setting, _SETTING)
    if not made:
        raise OSError("libcrypt does not know bcrypt")
    return _crypt(password, setting.value)


def check_password(password: str, hashed: str) -> bool:
    """Whether a password has this hash; False for a hash that cannot be read."""
    made = _crypt(password, hashed.encode())
    return bool(made) and not made.startswith("*") and hmac.compare_digest(made, hashed)


def _crypt(password: str, setting: bytes) -> str:
    data = ctypes.create_string_buffer(_DATA)
    if "\0" in password:
        return ""
    made = _library().crypt_rn(password.encode(), setting, data, _DATA)
    return made.decode() if made else ""


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_rn.restype = library.crypt_gensalt_rn.restype = ctypes.c_char_p
    library.crypt_rn.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
    library.crypt_gensalt_rn.argtypes = (
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
    )
    return library
