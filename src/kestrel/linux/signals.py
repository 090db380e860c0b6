"""Signals as plain numbers, and the calls about them: the C half of the standard library's `signal`.

The other half makes enumerations of them. With all that it loads it takes longer than making a container, and the
zygote would share its memory with every shim.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403 - all that is there
else:
    from _signal import *  # noqa: F403
