"""Who may do what: accounts and grants, passwords and keys, tokens, and the decision about each request.

`Gate` is what the door asks; `Accounts` is what a person changes.
"""

from kestrel.registry.access.accounts import Accounts
from kestrel.registry.access.gate import Gate, Wanted
from kestrel.registry.access.model import ANONYMOUS, DELETE, EVERYONE, PULL, PUSH, Principal

__all__ = ["ANONYMOUS", "DELETE", "EVERYONE", "PULL", "PUSH", "Accounts", "Gate", "Principal", "Wanted"]
