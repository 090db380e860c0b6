"""Password hashes through libcrypt."""

from kestrel.linux.crypt import check_password, hash_password


def test_a_password_has_its_own_hash_and_no_other() -> None:
    one, two = hash_password("correct horse", cost=4), hash_password("correct horse", cost=4)
    assert one != two
    assert one.startswith("$2b$04$")
    assert check_password("correct horse", one)
    assert not check_password("correct horse ", one)
    assert not check_password("", one)


def test_a_hash_made_elsewhere_is_known() -> None:
    """A test vector of bcrypt that is as old as the algorithm."""
    assert check_password("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")


def test_what_is_no_hash_matches_nothing() -> None:
    for text in ("", "*", "*0", "plain", "$2y$", "$2b$10$" + "x" * 53, "{SHA}abc"):
        assert not check_password("plain", text)
    assert not check_password("a\0b", hash_password("a", cost=4))
