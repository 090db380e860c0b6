"""The API over the wire: statuses, lists, watches and bodies as clients in any language meet them."""

import asyncio
import gzip
import io
import json
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from kestrel.kube.api.status import STALE
from kestrel.kube.apiserver import AdmissionSettings, Settings
from kestrel.kube.apiserver.call import Caller
from kestrel.kube.client import DeleteOptions, Target
from kestrel.kube.store import Key
from kestrel.testing.apiserver import TOKEN, Cluster, running

CONFIGS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
NOWHERE = "/api/v1/namespaces/none/configmaps"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
JSON = {"Content-Type": "application/json"}


class Api:
    """A bare HTTP client with a token."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self._session = session
        self._tls = cluster.authority.client_context()

    def request(self, method: str, path: str, **options: Any):
        return self._session.request(method, self.cluster.address + path, ssl=self._tls, **options)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send a request; returns code and decoded body. `Content_Type` as a keyword is the header."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            named.setdefault("Content-Type", "application/json")
        data = io.BytesIO(body) if body is not None else None
        async with self.request(method, path, data=data, headers=named) as response:
            data = await response.read()
            decoded = json.loads(data) if "json" in response.headers.get("Content-Type", "") else data.decode()
            return response.status, decoded

    async def get(self, path: str, **headers: str) -> Any:
        code, body = await self.call("GET", path, **headers)
        assert code == 200, body
        return body

    @asynccontextmanager
    async def watch(self, path: str, **headers: str):
        """Open a watch; yields a coroutine function for the next event."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with self.request("GET", path, headers=named) as response:
            assert response.status == 200, await response.text()

            async def event() -> Any:
                line = await asyncio.wait_for(response.content.readline(), 10)
                return json.loads(line) if line else None

            yield event


@pytest.fixture
async def api(tmp_path):
    async with (
        running(tmp_path) as cluster,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http,
    ):
        yield Api(cluster, http)


def config(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"name": name}}, "data": data}


POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def status(body: Any) -> tuple[str, int, str]:
    assert (body["kind"], body["apiVersion"], body["status"]) == ("Status", "v1", "Failure")
    return body["reason"], body["code"], body["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", f"{CONFIGS}/none", None, ("NotFound", 404, 'configmaps "none" not found')),
        ("GET", "/apis/none/v1/things", None, ("NotFound", 404, "the server could not find the requested resource")),
        ("GET", "/api/v2/pods", None, ("NotFound", 404, "the server could not find the requested resource")),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x", {}, ("MethodNotAllowed", 405, None)),
        ("DELETE", "/api/v1/namespaces", None, ("MethodNotAllowed", 405, None)),
        ("GET", f"{CONFIGS}?labelSelector=a in (", None, ("BadRequest", 400, None)),
        ("GET", f"{CONFIGS}?limit=x", None, ("BadRequest", 400, None)),
        ("GET", f"{CONFIGS}?continue=x", None, ("BadRequest", 400, None)),
        ("GET", f"{CONFIGS}?resourceVersion=999999999", None, ("Timeout", 504, None)),
        ("GET", f"{CONFIGS}?resourceVersion=x", None, ("Invalid", 422, None)),
        ("GET", f"{CONFIGS}?sendInitialEvents=true", None, ("Invalid", 422, None)),
        ("GET", f"{CONFIGS}?watch=1&sendInitialEvents=true", None, ("Invalid", 422, None)),
        ("POST", CONFIGS, {"metadata": {}}, ("Invalid", 422, None)),
        ("POST", CONFIGS, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}, ("BadRequest", 400, None)),
        ("POST", CONFIGS, {"metadata": {"name": "a", "namespace": "other"}}, ("BadRequest", 400, None)),
        ("POST", CONFIGS, {"metadata": {"name": "a", "resourceVersion": "1"}}, ("BadRequest", 400, None)),
        ("POST", CONFIGS, {"metadata": {"name": "A_B"}}, ("Invalid", 422, None)),
        ("POST", CONFIGS, b"{", ("BadRequest", 400, None)),
        ("POST", CONFIGS, b"[]", ("BadRequest", 400, None)),
        ("POST", CONFIGS, [], ("BadRequest", 400, None)),
        ("POST", CONFIGS, b"[" * 100_000, ("BadRequest", 400, None)),
        ("POST", PODS, {"metadata": {"name": "a"}, "spec": {"containers": "none"}}, ("BadRequest", 400, None)),
        ("POST", PODS, {"metadata": {"name": "a"}, "spec": []}, ("BadRequest", 400, None)),
        ("POST", PODS, {"metadata": []}, ("BadRequest", 400, None)),
        ("POST", CONFIGS + "?dryRun=Some", {"metadata": {"name": "a"}}, ("BadRequest", 400, None)),
        ("POST", CONFIGS + "?fieldValidation=No", {"metadata": {"name": "a"}}, ("BadRequest", 400, None)),
        ("PUT", f"{CONFIGS}/a", {"metadata": {"name": "a"}}, ("NotFound", 404, 'configmaps "a" not found')),
        ("DELETE", f"{CONFIGS}/a", None, ("NotFound", 404, 'configmaps "a" not found')),
        ("POST", NOWHERE, {"metadata": {"name": "a"}}, ("NotFound", 404, 'namespaces "none" not found')),
    ],
)  # fmt: skip
async def test_a_bad_request_gets_the_status_kubernetes_has_for_it(api: Api, method, path, body, expected) -> None:
    code, found = await api.call(method, path, body, Content_Type="application/json")
    reason, status_code, message = expected
    got = status(found)
    assert got[:2] == (reason, status_code)
    assert code == status_code
    if message is not None:
        assert got[2] == message


async def test_media_types_and_sizes_are_checked(api: Api) -> None:
    code, body = await api.call("POST", CONFIGS, b"x", Content_Type="text/csv")
    assert (code, body["reason"]) == (415, "UnsupportedMediaType")
    code, body = await api.call("PATCH", f"{CONFIGS}/a", {}, Content_Type="application/json")
    assert (code, body["reason"]) == (415, "UnsupportedMediaType")
    code, body = await api.call("GET", CONFIGS, Accept="text/csv")
    assert (code, body["reason"]) == (406, "NotAcceptable")
    code, body = await api.call("POST", CONFIGS, config("a", text="x" * 3_200_000))
    assert (code, body["reason"]) == (413, "RequestEntityTooLarge")


async def test_yaml_comes_in_and_goes_out(api: Api) -> None:
    text = b"metadata: {name: a}\ndata: {day: '2026-01-01', 'on': 'yes'}\n"
    code, body = await api.call("POST", CONFIGS, text, Content_Type="application/yaml", Accept="application/yaml")
    assert code == 201
    assert "kind: ConfigMap" in body
    assert (await api.get(f"{CONFIGS}/a"))["data"] == {"day": "2026-01-01", "on": "yes"}


async def test_yaml_that_expands_without_end_is_refused(api: Api) -> None:
    bomb = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"a%d: &a%d [%b]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 12)
    )
    code, body = await api.call("POST", CONFIGS, bomb, Content_Type="application/yaml")
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_generated_names_are_made_and_metadata_is_the_servers(api: Api) -> None:
    body = {"metadata": {"generateName": "x-", "uid": "mine", "creationTimestamp": "2000-01-01T00:00:00Z"}}
    code, found = await api.call("POST", CONFIGS, body)
    metadata = found["metadata"]
    assert code == 201
    assert metadata["name"].startswith("x-")
    assert len(metadata["name"]) == 7
    assert metadata["uid"] != "mine"
    assert not metadata["creationTimestamp"].startswith("2000")
    assert metadata["resourceVersion"].isdigit()


async def test_unknown_and_repeated_fields_are_refused_warned_of_or_dropped(api: Api) -> None:
    text = b'{"metadata":{"name":"a"},"dta":{},"data":{"x":"1"},"data":{"x":"2"}}'
    code, body = await api.call("POST", f"{CONFIGS}?fieldValidation=Strict", text, Content_Type="application/json")
    assert code == 400
    assert 'unknown field "dta"' in body["message"]
    assert 'duplicate field "data"' in body["message"]
    async with api.request("POST", f"{CONFIGS}?fieldValidation=Warn", data=text, headers=JSON) as response:
        assert response.status == 201
        assert response.headers.getall("Warning") == [
            '299 - "duplicate field \\"data\\""',
            '299 - "unknown field \\"dta\\""',
        ]
        assert "dta" not in await response.json()


async def test_a_stale_put_is_a_conflict_and_one_without_a_version_is_not(api: Api) -> None:
    _, made = await api.call("POST", CONFIGS, config("a", x="1"))
    made["data"]["x"] = "2"
    assert (await api.call("PUT", f"{CONFIGS}/a", made))[0] == 200
    code, body = await api.call("PUT", f"{CONFIGS}/a", made)
    assert status(body) == (
        "Conflict",
        409,
        f'Operation cannot be fulfilled on configmaps "a": {STALE}',
    )
    del made["metadata"]["resourceVersion"]
    made["data"]["x"] = "3"
    assert (await api.call("PUT", f"{CONFIGS}/a", made))[0] == 200
    code, body = await api.call("PUT", f"{CONFIGS}/b", made)
    assert code == 400
    assert "does not match the name on the URL" in body["message"]


async def test_a_put_that_changes_nothing_keeps_the_version(api: Api) -> None:
    _, made = await api.call("POST", CONFIGS, config("a", x="1"))
    code, again = await api.call("PUT", f"{CONFIGS}/a", made)
    assert (code, again) == (200, made)


async def test_concurrent_patches_all_arrive(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a"))
    patches = [
        api.call("PATCH", f"{CONFIGS}/a", {"data": {f"k{n}": "v"}}, Content_Type="application/merge-patch+json")
        for n in range(20)
    ]
    assert {code for code, _ in await asyncio.gather(*patches)} == {200}
    assert len((await api.get(f"{CONFIGS}/a"))["data"]) == 20


async def test_status_is_written_by_its_own_path_only(api: Api) -> None:
    _, made = await api.call("POST", PODS, {**POD, "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    assert made["metadata"]["generation"] == 1
    made["status"]["phase"] = "Running"
    made["metadata"]["labels"] = {"a": "b"}
    _, put = await api.call("PUT", f"{PODS}/p", made)
    assert (put["status"]["phase"], put["metadata"]["labels"]) == ("Pending", {"a": "b"})
    put["status"]["phase"] = "Running"
    put["spec"]["containers"][0]["image"] = "other"
    code, written = await api.call("PUT", f"{PODS}/p/status", put)
    assert (code, written["status"]["phase"]) == (200, "Running")
    assert written["spec"]["containers"][0]["image"] == "i"
    assert written["metadata"]["generation"] == 1
    patch = {"spec": {"containers": [{"name": "c", "image": "new"}]}}
    _, patched = await api.call("PATCH", f"{PODS}/p", patch, Content_Type="application/strategic-merge-patch+json")
    assert patched["metadata"]["generation"] == 2


async def test_deletion_waits_for_finalizers_and_checks_preconditions(api: Api) -> None:
    _, made = await api.call("POST", CONFIGS, {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}})
    code, body = await api.call("DELETE", f"{CONFIGS}/a", {"preconditions": {"uid": "other"}})
    assert code == 409
    assert "Precondition failed: UID in precondition: other" in body["message"]
    code, body = await api.call("DELETE", f"{CONFIGS}/a", {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert code == 200
    assert body["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["b.io/new"]}}
    code, body = await api.call("PATCH", f"{CONFIGS}/a", more, Content_Type=MERGE)
    assert code == 422
    assert "no new finalizers can be added if the object is being deleted" in body["message"]
    none = {"metadata": {"finalizers": None}}
    code, _ = await api.call("PATCH", f"{CONFIGS}/a", none, Content_Type=MERGE)
    assert code == 200
    assert (await api.call("GET", f"{CONFIGS}/a"))[0] == 404


async def test_foreground_deletion_is_left_to_the_garbage_collector(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a"))
    code, body = await api.call("DELETE", f"{CONFIGS}/a", {"propagationPolicy": "Foreground"})
    assert (code, body["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])
    code, body = await api.call("DELETE", f"{CONFIGS}/a", {"propagationPolicy": "No"})
    assert code == 422


async def test_deletecollection_takes_what_is_selected(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.call("POST", CONFIGS, config(name))
    code, body = await api.call("DELETE", f"{CONFIGS}?labelSelector=name in (a,b)")
    assert (code, [item["metadata"]["name"] for item in body["items"]]) == (200, ["a", "b"])
    assert [item["metadata"]["name"] for item in (await api.get(CONFIGS))["items"]] == ["c"]


async def test_a_pod_on_a_node_is_deleted_in_two_steps(api: Api) -> None:
    await api.call("POST", PODS, POD)
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    assert (await api.call("POST", f"{PODS}/p/binding", binding))[0] == 201
    code, body = await api.call("POST", f"{PODS}/p/binding", binding)
    assert (code, body["message"]) == (
        409,
        'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n"',
    )
    assert (await api.call("DELETE", f"{PODS}/p"))[1]["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await api.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 5}))[1]["metadata"][
        "deletionGracePeriodSeconds"
    ] == 5
    assert (await api.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 60}))[1]["metadata"][
        "deletionGracePeriodSeconds"
    ] == 5
    assert (await api.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0}))[0] == 200
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404


async def test_eviction_deletes_the_pod(api: Api) -> None:
    await api.call("POST", PODS, POD)
    code, body = await api.call("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}})
    assert (code, body["status"]) == (201, "Success")
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404


async def test_lists_go_on_where_they_stopped(api: Api) -> None:
    for number in range(5):
        await api.call("POST", CONFIGS, config(f"n{number}"))
    first = await api.get(f"{CONFIGS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    await api.call("DELETE", f"{CONFIGS}/n3")
    token = first["metadata"]["continue"]
    second = await api.get(f"{CONFIGS}?limit=9&continue={token}")
    assert [item["metadata"]["name"] for item in second["items"]] == ["n2", "n3", "n4"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    exact = await api.get(
        f"{CONFIGS}?resourceVersion={first['metadata']['resourceVersion']}&resourceVersionMatch=Exact"
    )
    assert len(exact["items"]) == 5
    assert len((await api.get(CONFIGS))["items"]) == 4


async def test_a_continue_token_that_is_too_old_comes_with_a_fresh_one(api: Api) -> None:
    for number in range(3):
        await api.call("POST", CONFIGS, config(f"n{number}"))
    token = (await api.get(f"{CONFIGS}?limit=1"))["metadata"]["continue"]
    for number in range(5000):
        await api.cluster.store.create(_key(number), {"metadata": {"name": str(number), "namespace": "default"}})
    code, body = await api.call("GET", f"{CONFIGS}?limit=1&continue={token}")
    assert (code, body["reason"]) == (410, "Expired")
    rest = await api.get(f"{CONFIGS}?continue={body['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest["items"]] == ["n1", "n2"]


def _key(number: int):
    return Key("others", "default", str(number))


async def test_large_answers_are_compressed_for_clients_that_ask(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a", text="x" * 300_000))
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Authorization": f"Bearer {TOKEN}"}) as raw:
        tls = api.cluster.authority.client_context()
        url = api.cluster.address + CONFIGS
        async with raw.get(url, ssl=tls, headers={"Accept-Encoding": "gzip"}) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert len(json.loads(gzip.decompress(await response.read()))["items"]) == 1
        async with raw.get(url, ssl=tls, headers={"Accept-Encoding": "identity"}) as response:
            assert "Content-Encoding" not in response.headers


async def test_a_table_has_columns_rows_and_the_metadata_of_each_object(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a", x="1"))
    table = await api.get(CONFIGS, Accept=TABLE)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    (row,) = table["rows"]
    assert row["cells"][:2] == ["a", 1]
    assert (row["object"]["kind"], row["object"]["metadata"]["name"]) == ("PartialObjectMetadata", "a")
    whole = await api.get(f"{CONFIGS}?includeObject=Object", Accept=TABLE)
    assert whole["rows"][0]["object"]["data"] == {"x": "1"}
    bare = await api.get(f"{CONFIGS}/a", Accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    assert (bare["kind"], "data" in bare) == ("PartialObjectMetadata", False)


async def test_a_watch_goes_on_after_a_list_and_ends_in_time(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a"))
    version = (await api.get(CONFIGS))["metadata"]["resourceVersion"]
    async with api.watch(f"{CONFIGS}?watch=true&resourceVersion={version}&timeoutSeconds=1") as event:
        await api.call("POST", CONFIGS, config("b"))
        await api.call("DELETE", f"{CONFIGS}/a")
        first, second = await event(), await event()
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "b")
        assert (second["type"], second["object"]["metadata"]["name"]) == ("DELETED", "a")
        assert int(second["object"]["metadata"]["resourceVersion"]) > int(version)
        assert await event() is None


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a"))
    for query in ("watch=1", "watch=1&resourceVersion=0"):
        async with api.watch(f"{CONFIGS}?{query}") as event:
            assert (await event())["type"] == "ADDED"


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with api.watch(f"{CONFIGS}?{query}") as event:
        assert (await event())["type"] == "ADDED"
        mark = await event()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await api.call("POST", CONFIGS, config("b"))
        assert (await event())["object"]["metadata"]["name"] == "b"


async def test_a_watch_with_a_selector_shows_objects_come_and_go(api: Api) -> None:
    merge = "application/merge-patch+json"
    async with api.watch(f"{CONFIGS}?watch=1&labelSelector=color=red") as event:
        await api.call("POST", CONFIGS, config("a"))
        await api.call("PATCH", f"{CONFIGS}/a", {"metadata": {"labels": {"color": "red"}}}, Content_Type=merge)
        await api.call("PATCH", f"{CONFIGS}/a", {"metadata": {"labels": {"color": "blue"}}}, Content_Type=merge)
        assert (await event())["type"] == "ADDED"
        last = await event()
        assert (last["type"], last["object"]["metadata"]["labels"]["color"]) == ("DELETED", "red")


async def test_a_watch_in_tables_sends_the_columns_once(api: Api) -> None:
    async with api.watch(f"{CONFIGS}?watch=1", Accept=TABLE) as event:
        for name in ("a", "b"):
            await api.call("POST", CONFIGS, config(name))
        first, second = await event(), await event()
        assert [len(e["object"]["columnDefinitions"]) for e in (first, second)] == [3, 0]
        assert first["object"]["rows"][0]["cells"][0] == "a"


async def test_a_watch_that_is_left_is_forgotten_at_once(api: Api) -> None:
    async with api.watch(f"{CONFIGS}?watch=1"):
        assert "apiserver_watches 1" in await api.get("/metrics")
    for _ in range(100):
        if "apiserver_watches 0" in await api.get("/metrics"):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the watch is still there")


async def test_one_object_can_be_watched_by_its_path(api: Api) -> None:
    await api.call("POST", CONFIGS, config("a"))
    async with api.watch(f"{CONFIGS}/a?watch=1") as event:
        await api.call("POST", CONFIGS, config("b"))
        await api.call("DELETE", f"{CONFIGS}/a")
        assert [(await event())["type"] for _ in range(2)] == ["ADDED", "DELETED"]


async def test_a_stop_does_not_wait_for_watches(tmp_path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        started = asyncio.get_running_loop().time()
        async with running(tmp_path) as cluster:
            response = await Api(cluster, http).request("GET", f"{CONFIGS}?watch=1")
        assert asyncio.get_running_loop().time() - started < 4
        response.close()


async def test_the_old_and_the_new_event_are_one_object(api: Api) -> None:
    old, new = "/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events"
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    event = {"metadata": {"name": "e"}, "regarding": about, "reason": "Tested", "type": "Normal", "note": "fine"}
    event |= {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "t", "reportingInstance": "i"}
    code, made = await api.call("POST", new, {**event, "action": "Testing"})
    assert (code, made["apiVersion"], made["note"]) == (201, "events.k8s.io/v1", "fine")
    assert (await api.get(f"{old}/e"))["message"] == "fine"
    assert len((await api.get(f"{old}?fieldSelector=involvedObject.name=p"))["items"]) == 1
    listed = await api.get(f"{new}?fieldSelector=regarding.name=p")
    assert [item["note"] for item in listed["items"]] == ["fine"]
    _, patched = await api.call("PATCH", f"{new}/e", {"note": "better"}, Content_Type=MERGE)
    assert patched["note"] == "better"
    assert (await api.get(f"{old}/e"))["message"] == "better"


async def test_strangers_see_version_and_health_only(api: Api) -> None:
    tls = api.cluster.authority.client_context()
    async with aiohttp.ClientSession() as stranger:
        for path, code in [
            ("/version", 200),
            ("/healthz", 200),
            ("/readyz", 200),
            ("/api", 403),
            ("/metrics", 403),
            (CONFIGS, 403),
        ]:
            async with stranger.get(api.cluster.address + path, ssl=tls) as response:
                assert response.status == code, path
        async with stranger.get(
            api.cluster.address + "/version", ssl=tls, headers={"Authorization": "Bearer wrong"}
        ) as response:
            assert response.status == 401
            assert (await response.json())["reason"] == "Unauthorized"


async def test_discovery_has_both_forms(api: Api) -> None:
    assert (await api.get("/api"))["versions"] == ["v1"]
    names = {row["name"] for row in (await api.get("/api/v1"))["resources"]}
    assert {"pods", "pods/log", "pods/exec", "pods/eviction", "namespaces/finalize", "configmaps"} <= names
    assert "events.k8s.io" in {group["name"] for group in (await api.get("/apis"))["groups"]}
    for version in ("v2", "v2beta1"):
        accept = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json"
        async with api.request("GET", "/api", headers={"Accept": accept}) as response:
            assert response.content_type == "application/json"
            assert f"v={version}" in response.headers["Content-Type"]
            body = await response.json()
            assert body["apiVersion"] == f"apidiscovery.k8s.io/{version}"


async def test_tokens_end_with_their_account_and_their_pod(api: Api) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts"
    await api.call("POST", account, {"metadata": {"name": "robot"}})
    pod = {
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]},
    }
    _, made = await api.call("POST", PODS, pod)
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    spec = {"expirationSeconds": 600, "boundObjectRef": reference}
    code, body = await api.call("POST", f"{account}/robot/token", {"spec": spec})
    assert code == 201
    review = {"spec": {"token": body["status"]["token"]}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    _, found = await api.call("POST", path, review)
    assert found["status"]["authenticated"] is True
    assert found["status"]["user"]["username"] == "system:serviceaccount:default:robot"
    await api.call("DELETE", f"{PODS}/p")
    _, found = await api.call("POST", path, review)
    assert found["status"]["authenticated"] is False
    code, body = await api.call("POST", f"{account}/robot/token", {"spec": {"expirationSeconds": 60}})
    assert code == 422


async def test_pods_need_their_service_account(api: Api) -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "none", "containers": [{"name": "c", "image": "i"}]},
    }
    code, body = await api.call("POST", PODS, pod)
    assert (code, body["message"]) == (
        403,
        'pods "p" is forbidden: error looking up service account default/none: serviceaccount "none" not found',
    )
    _, made = await api.call("POST", PODS, POD)
    assert made["spec"]["serviceAccountName"] == "default"
    assert made["spec"]["priority"] == 0
    assert {t["key"] for t in made["spec"]["tolerations"]} == {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }


async def test_a_restart_keeps_objects_and_expires_old_watches(tmp_path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with running(tmp_path) as cluster, aiohttp.ClientSession(headers=headers) as http:
        made = Api(cluster, http)
        await made.call("POST", CONFIGS, config("a"))
        version = (await made.get(CONFIGS))["metadata"]["resourceVersion"]
    async with running(tmp_path) as cluster, aiohttp.ClientSession(headers=headers) as http:
        again = Api(cluster, http)
        found = await again.get(CONFIGS)
        assert [item["metadata"]["name"] for item in found["items"]] == ["a"]
        assert int(found["metadata"]["resourceVersion"]) > int(version)
        code, body = await again.call("GET", f"{CONFIGS}?watch=1&resourceVersion={version}")
        assert (code, body["reason"]) == (410, "Expired")


async def test_what_the_platform_does_itself_obeys_the_same_rules(api: Api) -> None:
    client = api.cluster.client
    with pytest.raises(Exception, match="may not be deleted"):
        await client.delete("namespaces", "default")
    made = await client.create("pods", {**POD, "metadata": {"name": "p", "namespace": "default"}})
    assert made["spec"]["restartPolicy"] == "Always"
    transport = api.cluster.api.transport(Caller(name="someone"))
    deleted = await transport.delete(Target(resource="pods", namespace="default", name="p"), DeleteOptions())
    assert deleted["status"] == "Success"


async def test_token_mounting_can_be_turned_on(tmp_path) -> None:
    settings = Settings(admission=AdmissionSettings(automount_tokens=True))
    async with running(tmp_path, settings=settings) as cluster:
        made = await cluster.client.create("pods", {**POD, "metadata": {"name": "p", "namespace": "default"}})
        (mount,) = made["spec"]["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        sources = made["spec"]["volumes"][0]["projected"]["sources"]
        assert [next(iter(source)) for source in sources] == ["serviceAccountToken", "configMap", "downwardAPI"]
