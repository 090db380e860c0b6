"""login and logout."""

import sys

from kestrel.base.errors import InvalidArgument
from kestrel.cli.console import say
from kestrel.cli.remote import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kestrel.cli.options import Parsed


def login(parsed: "Parsed") -> int:
    """`kestrel login`."""
    registry, typed = parsed.words[0], sys.stdin.isatty()
    username = parsed.username or (input("Username: ") if typed else "")
    if parsed.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif parsed.password:
        password = parsed.password
    elif typed:
        from getpass import getpass

        password = getpass("Password: ")
    else:
        raise InvalidArgument("no password given", hint="pipe it into `kestrel login -u NAME --password-stdin`")
    kept = call("login", {"registry": registry, "username": username, "password": password})["kept"]
    say(f"logged in to {registry} as {username}; kept in {kept}")
    return 0


def logout(parsed: "Parsed") -> int:
    """`kestrel logout`."""
    call("logout", {"registry": parsed.words[0]})
    say(f"logged out of {parsed.words[0]}")
    return 0
