from kestrel.network.names import Names


def test_names_are_compared_without_case_and_final_dot() -> None:
    names = Names()
    names.put("a", ["Web", "web.", "api"], "10.0.0.2")
    assert names.addresses("WEB.") == ["10.0.0.2"]
    assert names.name_of("10.0.0.2") == "web"


def test_several_may_share_a_name_and_one_that_goes_leaves_the_others() -> None:
    names = Names()
    names.put("a", ["web"], "10.0.0.2")
    names.put("b", ["web"], "10.0.0.3")
    assert names.addresses("web") == ["10.0.0.2", "10.0.0.3"]
    names.drop("a")
    assert names.addresses("web") == ["10.0.0.3"]
    assert names.name_of("10.0.0.2") == ""


def test_what_is_said_anew_replaces_what_was_said_before() -> None:
    names = Names()
    names.put("a", ["old"], "10.0.0.2")
    names.put("a", ["new"], "10.0.0.4")
    assert names.addresses("old") == []
    assert names.addresses("new") == ["10.0.0.4"]
    assert names.name_of("10.0.0.2") == ""


def test_dropping_the_unknown_is_fine() -> None:
    names = Names()
    names.drop("nobody")
    assert names.addresses("nobody") == []
