"""The syntaxes of names: DNS labels, qualified names, label values, ports, keys; each says what is wrong in
Kubernetes' own sentence, because users search the web for it.

A checker takes the text and returns sentences, none when it is fine. Sources: RFC 1123, RFC 6335, and kubernetes.io
"Object Names and IDs" and "Labels and Selectors".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Checker = Callable[[str], tuple[str, ...]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_QUALIFIED})?"
_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"

_LABEL_RE = re.compile(_LABEL + r"\Z")
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN + r"\Z")
_DNS1035_RE = re.compile(_DNS1035 + r"\Z")
_QUALIFIED_RE = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_KEY_RE = re.compile(_KEY + r"\Z")
_HEADER_RE = re.compile(_HEADER + r"\Z")

_ENDS = "must start and end with an alphanumeric character"
IMMUTABLE = "field is immutable"
EMPTY = "must be non-empty"
PORT_RANGE = "must be between 1 and 65535, inclusive"


def _longer(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _shaped(sentence: str, pattern: str, *examples: str) -> str:
    """A sentence about a pattern, with examples, in the form every Kubernetes message has."""
    shown = "".join(f"'{e}', " if not i else f" or '{e}', " for i, e in enumerate(examples))
    return f"{sentence} (e.g. {shown}regex used for validation is '{pattern}')"


@lru_cache(maxsize=2048)
def dns_label(text: str) -> tuple[str, ...]:
    """A lowercase RFC 1123 label, as containers, volumes and namespaces are named."""
    found = [_longer(63)] if len(text) > 63 else []
    if not _LABEL_RE.match(text):
        if _SUBDOMAIN_RE.match(text):
            found.append("must not contain dots")
        else:
            sentence = (
                f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and {_ENDS}"
            )
            found.append(_shaped(sentence, _LABEL, "my-name", "123-abc"))
    return tuple(found)


@lru_cache(maxsize=2048)
def dns_subdomain(text: str) -> tuple[str, ...]:
    """A lowercase RFC 1123 subdomain, as most objects are named."""
    found = [_longer(253)] if len(text) > 253 else []
    if not _SUBDOMAIN_RE.match(text):
        sentence = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            f"and {_ENDS}"
        )
        found.append(_shaped(sentence, _SUBDOMAIN, "example.com"))
    return tuple(found)


@lru_cache(maxsize=256)
def dns1035_label(text: str) -> tuple[str, ...]:
    """A label that begins with a letter, as services are named."""
    found = [_longer(63)] if len(text) > 63 else []
    if not _DNS1035_RE.match(text):
        sentence = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character"
        )
        found.append(_shaped(sentence, _DNS1035, "my-name", "abc-123"))
    return tuple(found)


@lru_cache(maxsize=2048)
def qualified_name(text: str) -> tuple[str, ...]:
    """A name with an optional DNS prefix and a slash, as label and annotation keys are."""
    found: list[str] = []
    shape = f"must consist of alphanumeric characters, '-', '_' or '.', and {_ENDS}"
    prefix, slash, name = text.partition("/")
    if not slash:
        name = prefix
    elif "/" in name:
        sentence = _shaped(f"a qualified name {shape}", _QUALIFIED, "MyName", "my.name", "123-abc")
        return (sentence + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",)
    elif not prefix:
        found.append(f"prefix part {EMPTY}")
    else:
        found.extend(f"prefix part {sentence}" for sentence in dns_subdomain(prefix))
    if not name:
        found.append(f"name part {EMPTY}")
    elif len(name) > 63:
        found.append(f"name part {_longer(63)}")
    if not _QUALIFIED_RE.match(name):
        found.append("name part " + _shaped(shape, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return tuple(found)


@lru_cache(maxsize=2048)
def label_value(text: str) -> tuple[str, ...]:
    """A label's value; may be empty."""
    found = [_longer(63)] if len(text) > 63 else []
    if text and not _QUALIFIED_RE.match(text):
        sentence = (
            f"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and {_ENDS}"
        )
        found.append(_shaped(sentence, _VALUE, "MyValue", "my_value", "12345"))
    return tuple(found)


def config_key(text: str) -> tuple[str, ...]:
    """A key of a ConfigMap or Secret: also a file name."""
    found = [_longer(253)] if len(text) > 253 else []
    if not _KEY_RE.match(text):
        sentence = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        found.append(_shaped(sentence, _KEY, "key.name", "KEY_NAME", "key-name"))
    if text == ".":
        found.append("must not be '.'")
    elif text == "..":
        found.append("must not be '..'")
    elif text.startswith(".."):
        found.append("must not start with '..'")
    return tuple(found)


def environment_name(text: str) -> tuple[str, ...]:
    """A variable's name: printable ASCII without `=`."""
    if not text:
        return (f"environment variable name {EMPTY}",)
    if any(not " " <= character <= "~" or character == "=" for character in text):
        return ("a valid environment variable name must consist only of printable ASCII characters other than '='",)
    return ()


def port_name(text: str) -> tuple[str, ...]:
    """A service name of RFC 6335, as ports are named."""
    found = [_longer(15)] if len(text) > 15 else []
    if not re.fullmatch(r"[-a-z0-9]+", text):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", text):
        found.append("must contain at least one letter (a-z)")
    if "--" in text:
        found.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return tuple(found)


def header_name(text: str) -> tuple[str, ...]:
    """An HTTP header's name."""
    if _HEADER_RE.match(text):
        return ()
    sentence = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return (_shaped(sentence, _HEADER, "X-Header-Name"),)


def path_segment(text: str) -> tuple[str, ...]:
    """A name that only has to fit into a URL path, as RBAC rules are named."""
    if text in (".", ".."):
        return (f"may not be '{text}'",)
    return tuple(f"may not contain '{mark}'" for mark in ("/", "%") if mark in text)


def generated(checker: Checker, base: str) -> tuple[str, ...]:
    """Check a `generateName`: a trailing dash is fine, as characters will follow."""
    return checker(base[:-1] + "a" if base.endswith("-") else base)
