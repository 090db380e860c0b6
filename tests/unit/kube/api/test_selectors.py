import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import scheme
from kestrel.kube.api.selectors import Fields, Labels

POD = scheme.by_kind("", "v1", "Pod")
assert POD is not None


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("", {}, True),
        ("app=web", {"app": "web"}, True),
        ("app==web", {"app": "db"}, False),
        ("app!=web", {}, True),
        ("app", {"app": ""}, True),
        ("!app", {"app": ""}, False),
        ("!app", {}, True),
        ("app in (a, b)", {"app": "b"}, True),
        ("app in (a,b)", {}, False),
        ("app notin (a,b)", {}, True),
        ("app notin (a,b),tier=x", {"app": "c", "tier": "x"}, True),
        ("example.com/app=web", {"example.com/app": "web"}, True),
        ("app=", {"app": ""}, True),
        ("size>3", {"size": "4"}, True),
        ("size<3", {"size": "4"}, False),
        ("size<3", {"size": "big"}, False),
        ("in in (in)", {"in": "in"}, True),
    ],
)
def test_label_selectors_select_as_kubernetes_documents(text, labels, selected):
    assert Labels.parse(text).matches(labels) is selected


@pytest.mark.parametrize("text", ["=a", "a=b=c", "a in b", "a in (b", "a,,b", "a b", "a=!", "-a=b", "a=b-", "x/y/z=1"])
def test_a_malformed_label_selector_is_refused(text):
    with pytest.raises(InvalidArgument):
        Labels.parse(text)


def test_a_label_selector_prints_what_it_parsed():
    for text in ("app=web", "app!=web", "!app", "app", "app in (a,b)", "app notin (a)", "n>3"):
        assert str(Labels.parse(text)) == text
        assert Labels.parse(str(Labels.parse(text))) == Labels.parse(text)


def test_a_selector_object_needs_all_its_parts():
    selector = Labels.of({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]})
    assert selector.matches({"a": "1"})
    assert not selector.matches({"a": "1", "b": "2"})
    assert Labels.of({}).matches({"x": "y"})
    assert not Labels.of(None).matches({})


def test_field_selectors_compare_as_text_and_know_defaults():
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}
    for text, selected in [
        ("spec.nodeName=n1,status.phase!=Succeeded,status.phase!=Failed", True),
        ("spec.nodeName=", False),
        ("spec.hostNetwork=false", True),
        ("metadata.name==p", True),
        ("metadata.namespace=", True),
    ]:
        assert Fields.parse(text).for_resource(POD).matches(pod) is selected


def test_a_field_that_cannot_be_selected_is_named():
    with pytest.raises(InvalidArgument, match=r"field label not supported: spec\.priority"):
        Fields.parse("spec.priority=3").for_resource(POD)


def test_escaped_separators_belong_to_the_value():
    selector = Fields.parse(r"metadata.name=a\,b\=c\\")
    assert selector.exact("metadata.name") == "a,b=c\\"
    assert Fields.parse(str(selector)) == selector
    with pytest.raises(InvalidArgument):
        Fields.parse("metadata.name")
