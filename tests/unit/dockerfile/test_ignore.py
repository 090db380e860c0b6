""".dockerignore: the cases that people get wrong, and a comparison with a plain reading of the rules."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.dockerfile import DockerfileError, parse_ignore


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("*.log", "a.log", True),
        ("*.log", "dir/a.log", False),
        ("**/*.log", "dir/a.log", True),
        ("**/*.log", "a.log", True),
        ("**/*.log", "x/y/z/a.log", True),
        ("dir", "dir/sub/file", True),
        ("dir/", "dir/file", True),
        ("/dir", "dir/file", True),
        ("./dir", "dir/file", True),
        ("dir/*", "dir/file", True),
        ("dir/*", "dir", False),
        ("*/temp*", "a/temporary", True),
        ("*/temp*", "a/b/temporary", False),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("temp?", "temp/", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/x/y/bb", False),
        ("**", "anything/at/all", True),
        ("**/foo", "foo", True),
        ("**/foo", "afoo", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("# a comment", "# a comment", False),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "other", True),
        ("*\n!keep\nkeep", "keep", True),
        ("dir\n!dir/keep", "dir/keep", False),
        ("dir\n!dir/keep", "dir/keep/below", False),
        ("dir\n!dir/keep", "dir/other", True),
        ("*\n!a/b\n", "a/c", True),
        ("!nothing", "nothing", False),
        ("  spaced  ", "spaced", True),
        ("a/../b", "b", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README.md", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("", "anything", False),
        ("foo.bar", "fooxbar", False),
        ("a+b(c)|$", "a+b(c)|$", True),
    ],
)
def test_patterns(patterns: str, path: str, ignored: bool) -> None:
    assert parse_ignore(patterns).ignores(path) is ignored


def test_the_deciding_line_is_named() -> None:
    ignore = parse_ignore("# build output\nbuild\n!build/keep\n")
    reason = ignore.reason("build/x")
    assert reason is not None
    assert (str(reason), reason.line) == ("build", 2)
    assert ignore.reason("build/keep") is None


@pytest.mark.parametrize("pattern", ["[", "a[", "[]", "a\\", "[a-", "!"])
def test_a_malformed_pattern_points_at_its_line(pattern: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_ignore(f"fine\n{pattern}\n")
    assert ".dockerignore:2" in str(caught.value)


def test_a_hostile_pattern_does_not_take_forever() -> None:
    ignore = parse_ignore("**/" * 20 + "*a*a*a*a*a*a*a*b\n")
    assert not ignore.ignores("/".join(["a" * 50] * 20))


names = st.sampled_from(["a", "b", "ab", "a.b", "ba"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
pieces = st.sampled_from(["a", "b", "*", "?", "**", "a*", "*b", "a.b", "[ab]"])
patterns = st.lists(pieces, min_size=1, max_size=4).map("/".join)


def slow(pattern: str, path: str) -> bool:
    """Translate to a regular expression, the other way to read the same rules."""
    out = ""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("/", at + 2) else 2
            out += ".*" if at >= len(pattern) else "(?:.*/)?"
            continue
        out += {"*": "[^/]*", "?": "[^/]", ".": r"\."}.get(pattern[at], pattern[at])
        at += 1
    parents = path.split("/")
    return any(re.fullmatch(out, "/".join(parents[: n + 1])) for n in range(len(parents)))


@given(st.lists(st.tuples(st.booleans(), patterns), min_size=1, max_size=4), paths)
def test_it_agrees_with_a_plain_reading_of_the_rules(lines: list[tuple[bool, str]], path: str) -> None:
    expected = False
    for exception, pattern in lines:
        if slow(pattern, path):
            expected = not exception
    text = "\n".join(("!" if exception else "") + pattern for exception, pattern in lines)
    assert parse_ignore(text).ignores(path) is expected


@given(st.text(alphabet="ab*?[]!/\\.-^# \n", max_size=40), paths)
def test_any_text_is_read_or_refused(text: str, path: str) -> None:
    try:
        ignore = parse_ignore(text)
    except DockerfileError:
        return
    assert ignore.ignores(path) in (True, False)
