"""Kubernetes stream channels over WebSocket messages: bytes in, frames out; no I/O.

Every message starts with the number of its channel. `v4.channel.k8s.io` and the older `channel.k8s.io` send it as a
byte, the `base64` variants as an ASCII digit before base64 text. `v5.channel.k8s.io` adds half-close: a message of
the byte 255 and a channel number says that the channel has ended, so that a remote process can see the end of its
input. The channels of exec and attach are STDIN to RESIZE; port-forward numbers two per port (`port_channels`).

Source: k8s.io/apimachinery/pkg/util/remotecommand and k8s.io/streaming, and what kubectl sends.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field

from kestrel.base.errors import InvalidArgument

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
CLOSE = 255

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
V4_BASE64 = "v4.base64.channel.k8s.io"
V1 = "channel.k8s.io"
V1_BASE64 = "base64.channel.k8s.io"

PROTOCOLS = (V5, V4, V4_BASE64, V1, V1_BASE64, "")
"""Subprotocols served, best first; a client that names none gets the binary form of `channel.k8s.io`."""


class ChannelError(InvalidArgument):
    """A message that does not follow the protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes for one channel."""

    channel: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer will send nothing more on this channel."""

    channel: int


def negotiate(offered: Iterable[str], served: Iterable[str] = PROTOCOLS) -> str | None:
    """Return the first of `served` that the client offers, "" when it offers none at all, None when none fits."""
    wanted = [name for name in offered if name]
    if not wanted:
        return ""
    return next((name for name in served if name and name in wanted), None)


@dataclass(frozen=True, slots=True)
class Channels:
    """The coding of one negotiated subprotocol."""

    protocol: str

    @property
    def text(self) -> bool:
        """Whether messages travel as text (base64) and not as binary."""
        return self.protocol in (V4_BASE64, V1_BASE64)

    @property
    def structured(self) -> bool:
        """Whether the error channel carries a Status object; older clients get plain text."""
        return self.protocol in (V5, V4, V4_BASE64)

    @property
    def half_close(self) -> bool:
        """Whether channels can be closed one by one."""
        return self.protocol == V5

    def encode(self, channel: int, data: bytes) -> bytes:
        """Return the message for some bytes of a channel; send it as text when `text` says so."""
        if self.text:
            return str(channel).encode() + base64.b64encode(data)
        return bytes((channel,)) + data

    def encode_close(self, channel: int) -> bytes:
        """Return the message that half-closes a channel (v5 only)."""
        return bytes((CLOSE, channel))

    def decode(self, message: "bytes | str") -> "Frame | Closed":
        """Read one message; raises ChannelError."""
        raw = message.encode("utf-8", "replace") if isinstance(message, str) else bytes(message)
        if not raw:
            raise ChannelError("message without a channel")
        if self.text:
            return _decode_text(raw)
        if self.half_close and raw[0] == CLOSE:
            if len(raw) != 2:
                raise ChannelError(f"close message of {len(raw)} bytes, not 2")
            return Closed(raw[1])
        return Frame(raw[0], raw[1:])


def _decode_text(raw: bytes) -> Frame:
    if not 0x30 <= raw[0] <= 0x39:
        raise ChannelError(f"channel {chr(raw[0])!r} is not a digit")
    try:
        return Frame(raw[0] - 0x30, base64.b64decode(raw[1:], validate=True))
    except (binascii.Error, ValueError) as error:
        raise ChannelError(f"channel {raw[0] - 0x30} carries bad base64: {error}") from error


def port_channels(index: int) -> tuple[int, int]:
    """Return the data and the error channel of the index-th port of a port-forward."""
    return 2 * index, 2 * index + 1


def port_greeting(port: int) -> bytes:
    """Return what opens each channel of a port-forward: the port, little end first."""
    return port.to_bytes(2, "little")
