import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.images.bootstrap.control import Relation, relations, stanzas


def test_a_field_with_alternatives_versions_and_qualifiers_is_read() -> None:
    assert relations("libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0, python3:any, x [linux-any] <!nocheck>") == (
        (Relation("libc6", ">=", "2.36"),),
        (Relation("debconf", ">=", "0.5"), Relation("debconf-2.0")),
        (Relation("python3"),),
        (Relation("x"),),
    )


@pytest.mark.parametrize("field", ["Not A Package", "x (~ 1)", "x (>= )", "|"])
def test_what_is_no_relation_is_refused(field: str) -> None:
    with pytest.raises(InvalidArgument):
        relations(field)


def test_paragraphs_keep_continuation_lines_and_lose_comments() -> None:
    text = "# a comment\nPackage: x\nDescription: y\n more\n .\n\n\nPackage: z\n"
    assert list(stanzas(text)) == [{"package": "x", "description": "y\nmore\n."}, {"package": "z"}]
