"""Names of here-documents: quoted, with white space, and what is none."""

import pytest

from kestrel.dockerfile import DockerfileError, decode, parse
from kestrel.dockerfile.lexer import openings


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("<<EOF", ["EOF"]),
        ("<<- EOF > out", ["EOF"]),
        ("<<'one two' x", ["one two"]),
        ("cat <<A <<'B'", ["A", "B"]),
        ("'<<EOF' <<<x << ", []),
    ],
)
def test_openings_of_a_line(line: str, names: list[str]) -> None:
    assert [found.name for _, found in openings(line) if found is not None] == names


def test_an_open_quote_in_a_name_is_an_error_with_its_line() -> None:
    with pytest.raises(DockerfileError, match="not closed") as caught:
        parse("FROM a\nRUN <<'EOF\nEOF\n")
    assert caught.value.line == 2


def test_a_quoted_name_with_a_space_names_a_copied_file() -> None:
    copied = decode(parse("FROM a\nCOPY <<'a b' /x/\nhello\na b\n")).stages[0].instructions[0]
    assert [(h.name, h.body) for h in copied.inline] == [("a b", "hello\n")]  # type: ignore[attr-defined]  # a COPY
    assert copied.destination == "/x/"  # type: ignore[attr-defined]  # a COPY
