"""A folder and a bucket give the same guarantees. Most tests run on both, and on Ceph's gateway."""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from rasterembed.errors import DataError, ObjectMissingError, StoreError, StoreUnavailableError, UsageError
from rasterembed.store import s3
from rasterembed.store.object_store import ObjectStore, locate
from rasterembed.store.s3_errors import refusal
from tests.support.proxy import Proxy, proxy_before
from tests.support.servers import S3Server
from tests.support.stores import anew, at

STRANGE_KEYS = ["a/b c.bin", "ä/ü é ☃.bin", "a/+?#%&=@!'().bin", "a/%20.bin", "a/b/c/d/e"]


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def server(request: pytest.FixtureRequest, bucket: str) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    server.create_bucket(bucket)
    return server


def test_a_key_that_s3fs_would_cut_is_refused(server: S3Server, bucket: str) -> None:
    store = at(server, bucket)
    store.write("scene.tif", b"another object")
    for call in (store.read, store.open, store.delete):
        with pytest.raises(
            StoreError, match=r"a key with \?versionId= cannot be read: copy the object to another key$"
        ):
            call("scene.tif?versionId=1.tif")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests be tried again without waiting, as often as usual."""
    monkeypatch.setattr(s3, "RETRY_DELAYS_S", (0.0,) * len(s3.RETRY_DELAYS_S))


def test_what_is_written_is_read(store: ObjectStore) -> None:
    for key in STRANGE_KEYS:
        store.write(key, key.encode())
    assert [store.read(key) for key in STRANGE_KEYS] == [key.encode() for key in STRANGE_KEYS]
    store.write(STRANGE_KEYS[0], b"")
    assert store.read(STRANGE_KEYS[0]) == b""


def test_what_is_not_there_is_none_to_read_and_an_error_to_open_and_nothing_to_delete(store: ObjectStore) -> None:
    assert store.read("none") is None
    assert store.sizes("none") == {}
    store.delete("none")
    with pytest.raises(ObjectMissingError, match=r"none.*: there is no such (file|object)"):
        store.open("none")
    with pytest.raises(ObjectMissingError, match=r"none.*: there is no such (file|object)"):
        store.describe(store.uri("none"))


def test_sizes_are_of_the_objects_directly_in_a_folder(store: ObjectStore) -> None:
    for key in ("folder/one", "folder/two words", "folder/ü", "folder/deeper/three", "folder2/four", "folder"):
        if key != "folder" or store.is_s3:
            store.write(key, key.encode())
    assert store.sizes("folder") == {"one": 10, "two words": 16, "ü": 9}
    store.delete("folder/one")
    assert store.sizes("folder") == {"two words": 16, "ü": 9}


def test_a_search_is_limited_to_names_with_a_beginning(store: ObjectStore) -> None:
    for key in ("folder/ab", "folder/ab-1/x", "folder/ab-1/deeper/y", "folder/a/ab-2", "folder/xab/ab", "ab-3/z"):
        store.write(key, b"")
    assert {key for key, _ in store.find("folder", "ab")} == {"folder/ab", "folder/ab-1/x", "folder/ab-1/deeper/y"}
    assert {key for key, _ in store.find("folder", "ab-")} == {"folder/ab-1/x", "folder/ab-1/deeper/y"}
    assert len(list(store.find("folder"))) == 5
    assert list(store.find("none", "ab")) == []


def test_a_listing_of_several_pages_is_whole(moto: S3Server, bucket: str) -> None:
    with _before(moto, bucket) as (proxy, store):
        for number in range(5):
            store.write(f"folder/{number}", b"x" * number)
        proxy.exchanges.clear()
        proxy.rewrite = lambda path: f"{path}&max-keys=2"
        assert store.sizes("folder") == {str(number): number for number in range(5)}
        assert len(proxy.exchanges) == 3


def test_a_file_that_is_too_large_is_not_read_to_its_end(store: ObjectStore) -> None:
    store.write("key", b"x" * 2**20)
    uri = store.uri("key")
    assert store.read_uri(uri, 2**20, "divide it") == b"x" * 2**20
    store.write("key", b"x" * (2**20 + 1))
    with pytest.raises(DataError, match=f"^{re.escape(uri)}: it has more than 1 MiB: divide it$"):
        store.read_uri(uri, 2**20, "divide it")


def test_describe_tells_one_state_from_another(store: ObjectStore) -> None:
    store.write("key", b"first")
    first = store.describe(store.uri("key"))
    assert first.size == 5
    assert store.describe(store.uri("key")) == first
    store.write("key", b"other")
    assert store.describe(store.uri("key")).version != first.version


def test_create_writes_once(store: ObjectStore) -> None:
    assert store.create("key", b"first")
    assert not store.create("key", b"second")
    assert store.read("key") == b"first"
    store.delete("key")
    assert store.create("key", b"third")


def test_of_sixteen_creators_exactly_one_wins(store: ObjectStore) -> None:
    """The creators use several connections, as several processes do."""
    together = threading.Barrier(16)
    stores = [store, anew(store), anew(store)]

    def create(number: int) -> bool:
        together.wait()
        return stores[number % 3].create("race", str(number).encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))
    assert won.count(True) == 1
    assert store.read("race") == str(won.index(True)).encode()


def _file(store: ObjectStore, key: str, content: bytes) -> Path:
    path = store.scratch(key.rpartition("/")[0]) / "one.part"
    path.write_bytes(content)
    return path


def test_only_allowed_local_rasters_may_be_named_by_a_store_on_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed, other):
        folder.mkdir()
        (folder / "scene.tif").touch()
    (allowed / "link.tif").symlink_to(other / "scene.tif")
    ways_out = [
        str(other / "scene.tif"),
        f"{allowed}/../other/scene.tif",
        f"{allowed}/link.tif",
        f"{allowed}-not/x.tif",
    ]
    store = ObjectStore(root="s3://bucket")
    assert not store.may_read(f"{allowed}/scene.tif")
    assert store.may_read("s3://anywhere/scene.tif")
    assert ObjectStore(root=str(tmp_path)).may_read(ways_out[0])

    by_field = ObjectStore(root="s3://bucket", local_rasters=(str(allowed),))
    by_name = store.allowing("s3://bucket/x.tif", f"{allowed}/scene.tif")
    monkeypatch.setenv("RASTEREMBED_LOCAL_RASTERS", f":{allowed}:")
    for permitting in (by_field, by_name, store):
        assert permitting.may_read(f"{allowed}/scene.tif")
        assert [uri for uri in ways_out if permitting.may_read(uri)] == []


def test_files_are_put_in_place_and_are_gone_locally(store: ObjectStore) -> None:
    file = _file(store, "folder/key", b"first")
    assert store.create_from_file("folder/key", file)
    assert not store.create_from_file("folder/key", _file(store, "folder/key", b"second"))
    assert store.read("folder/key") == b"first"
    store.write_from_file("folder/key", _file(store, "folder/key", b"third"))
    assert store.read("folder/key") == b"third"
    assert not file.exists()
    assert store.sizes("folder") == {"key": 5}


def test_a_file_on_its_way_is_no_object_and_can_be_cleared_away(store: ObjectStore) -> None:
    file = _file(store, "folder/key", b"half")
    assert store.sizes("folder") == {}
    store.clear_scratch("folder", older_than_s=60)
    assert file.exists()
    store.clear_scratch("other")
    assert file.exists()
    store.clear_scratch("folder")
    assert not file.exists()


def test_readers_never_see_half_an_object(store: ObjectStore) -> None:
    contents = [bytes([number]) * 300_000 for number in range(4)]
    store.write("key", contents[0])
    done, seen = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            seen.add(store.read("key"))

    reader = threading.Thread(target=read)
    reader.start()
    rounds = 0
    # On a busy machine, the reader may get its turn late.
    while rounds < 5 or (len(seen) < 2 and reader.is_alive() and rounds < 10_000):
        rounds += 1
        for content in contents:
            store.write("key", content)
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert len(seen) > 1


def test_what_disappears_from_a_folder_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = ObjectStore(root=str(tmp_path)), tmp_path / "folder/key"
    store.write("folder/key", b"first")
    stat, scandir = os.stat, os.scandir

    def stat_and_delete(asked: Any, **options: Any) -> os.stat_result:
        status = stat(asked, **options)
        if str(asked) == str(path):
            path.unlink(missing_ok=True)
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat_and_delete)
        assert store.describe_object("folder/key").size == 5
    with pytest.raises(ObjectMissingError):
        store.describe_object("folder/key")

    def delete_and_scan(asked: Any) -> Any:
        path.parent.rmdir()
        return scandir(asked)

    monkeypatch.setattr(os, "scandir", delete_and_scan)
    assert store.sizes("folder") == {}


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_SINGLE_PUT_BYTES", 20 * 2**20)
    content = random.Random(1).randbytes(23 * 2**20)
    with proxy_before(server.endpoint_url) as proxy:
        store = at(server, bucket, endpoint_url=proxy.endpoint_url)
        assert store.create_from_file("large/key", _file(store, "large/key", content))
        assert not store.create_from_file("large/key", _file(store, "large/key", b"x" * len(content)))
        parts = [exchange for exchange in proxy.exchanges if "partNumber=" in exchange.path]
        assert len(parts) == 3
        assert store.sizes("large") == {"key": len(content)}
        data = store.read("large/key")
    assert data is not None
    assert hashlib.sha256(data).digest() == hashlib.sha256(content).digest()


def test_an_open_object_is_read_by_ranges(store: ObjectStore) -> None:
    store.write("key", bytes(range(200)))
    with store.open("key") as file:
        assert file.read(3) == bytes([0, 1, 2])
        assert file.read(2) == bytes([3, 4])
        assert file.seek(-4, os.SEEK_END) == 196
        assert file.read(100) == bytes([196, 197, 198, 199])
        assert file.read(1) == b""
        assert file.seek(190) == 190
        assert file.seek(5, os.SEEK_CUR) == file.tell() == 195
        assert file.read() == bytes([195, 196, 197, 198, 199])
        assert file.read() == b""
        assert file.seekable()


def test_an_open_object_on_s3_fetches_what_is_asked_for_and_no_more(server: S3Server, bucket: str) -> None:
    with proxy_before(server.endpoint_url) as proxy:
        store = at(server, bucket, endpoint_url=proxy.endpoint_url)
        store.write("key", bytes(2**20))
        proxy.exchanges.clear()
        with store.open("key") as file:
            file.seek(1000)
            file.read(10)
            file.seek(-7, os.SEEK_END)
            file.read(7)
        assert [(exchange.method, exchange.sent) for exchange in proxy.exchanges] == [
            ("HEAD", 0),
            ("GET", 10),
            ("GET", 7),
        ]


@contextmanager
def _before(server: S3Server, bucket: str) -> Iterator[tuple[Proxy, ObjectStore]]:
    server.create_bucket(bucket)
    with proxy_before(server.endpoint_url) as proxy:
        yield proxy, at(server, bucket, endpoint_url=proxy.endpoint_url)


def test_where_conditions_are_ignored_create_still_writes_once(
    moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_SETTLE_S", 0.0)
    with _before(moto, bucket) as (proxy, store):
        proxy.hidden = {"if-none-match"}
        store.write("there", b"first")
        assert not store.create("there", b"second")
        assert store.create("key", b"first")
        assert not store.create("key", b"second")
        assert store.create("other", b"first")
        assert [store.read(key) for key in ("there", "key", "other")] == [b"first"] * 3
        other = anew(store)
        assert not other.create("key", b"third")
        assert store.read("key") == b"first"
        assert at(moto, bucket, prefix="").sizes("pre fix") == {
            "there": 5,
            "key": 5,
            "other": 5,
        }  # The probe left nothing.


def test_where_conditions_are_ignored_the_last_of_two_creators_wins(
    moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _before(moto, bucket) as (proxy, store):
        proxy.hidden = {"if-none-match"}
        rival = anew(store)
        monkeypatch.setattr(s3.time, "sleep", lambda _: rival.write("key", b"rival"))  # This runs while `create` waits.
        assert not store.create("key", b"mine")
        assert store.read("key") == b"rival"


@pytest.mark.parametrize("fault", ["unavailable", "unanswered", "cut short"])
def test_a_request_that_fails_is_sent_again(fault: str, moto: S3Server, bucket: str, impatient: None) -> None:
    with _before(moto, bucket) as (proxy, store):
        store.write("key", b"content")
        failing: list[str] = []

        def fail_once(method: str, path: str) -> str | None:
            failing.append(f"{method} {path}")
            return fault if failing.count(failing[-1]) == 1 else None

        proxy.fault = fail_once
        assert store.read("key") == b"content"
        assert store.describe(store.uri("key")).size == 7
        with store.open("key") as file:
            assert file.read(7) == b"content"
        store.write("key", b"other")
        store.write_from_file("file", _file(store, "file", b"from a file"))
        assert store.sizes("x") == {}
        store.delete("key")
        assert store.read("key") is None
        proxy.fault = lambda *_: None
        assert store.read("file") == b"from a file"


@pytest.mark.parametrize("fault", ["unavailable", "unanswered", "cut short"])
def test_a_server_that_stays_away_is_an_error_of_one_line(
    fault: str, moto: S3Server, bucket: str, impatient: None
) -> None:
    with _before(moto, bucket) as (proxy, store):
        store.write("key", b"content")
        proxy.exchanges.clear()
        proxy.fault = lambda *_: fault
        with pytest.raises(StoreUnavailableError) as error:
            store.read("key")
        tries = 1 + len(s3.RETRY_DELAYS_S)  # Below s3fs, an unanswered GET is sent once more.
        assert tries <= len(proxy.exchanges) <= 2 * tries
    text = str(error.value)
    assert text.startswith(f"s3://{bucket}/pre fix/key on {proxy.endpoint_url}: ")
    assert "\n" not in text
    assert ("503" in text.replace(proxy.endpoint_url, "")) == (fault == "unavailable")  # A port may hold these digits.


def test_requests_wait_for_a_server_that_restarts(moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is back before the third retry."""
    with _before(moto, bucket) as (proxy, store):
        store.write("key", b"content")
        proxy.fault = lambda *_: "unavailable"
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                proxy.fault = lambda *_: None

        monkeypatch.setattr(s3.time, "sleep", sleep)
        assert store.read("key") == b"content"
        assert slept == [0.5, 1.0, 2.0]
        assert sum(s3.RETRY_DELAYS_S) > 12  # Seconds that a restart of Ceph's gateway takes.


CALLS = {
    "read": lambda store: store.read("key"),
    "write": lambda store: store.write("key", b""),
    "create": lambda store: store.create("key", b""),
    "sizes": lambda store: store.sizes("folder"),
    "delete": lambda store: store.delete("key"),
    "write_from_file": lambda store: store.write_from_file("key", _file(store, "folder/key", b"")),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_bucket_is_named(call: str, server: S3Server) -> None:
    with pytest.raises(
        StoreError,
        match=r"^s3://no-such-bucket/pre fix/\S+ on http://\S+: there is no such bucket: check its name, or create",
    ):
        CALLS[call](at(server, "no-such-bucket"))


@pytest.mark.parametrize("call", CALLS)
def test_nobody_at_the_endpoint_is_an_error_of_one_line(call: str, impatient: None) -> None:
    store = ObjectStore(root="s3://bucket", endpoint_url="http://127.0.0.1:1", access_key="a", secret_key="b")
    with pytest.raises(StoreUnavailableError) as error:
        CALLS[call](store)
    assert " on http://127.0.0.1:1: no answer (EndpointConnectionError): check the endpoint" in str(error.value)


@pytest.mark.s3
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("field", "code"), [("access_key", "InvalidAccessKeyId"), ("secret_key", "SignatureDoesNotMatch")]
)
def test_wrong_keys_are_refused_without_being_told(
    call: str, field: str, code: str, ceph: S3Server, bucket: str
) -> None:
    ceph.create_bucket(bucket)
    store = at(ceph, bucket).model_copy(update={field: SecretStr("wrong-one")})
    with pytest.raises(StoreError) as error:
        CALLS[call](store)
    text = str(error.value)
    assert re.search(": check the keys, and that the bucket's policy allows s3:[A-Z][A-Za-z]+$", text)
    assert f"access denied ({code})" in text or (call == "create" and "access denied (403)" in text)
    for secret in ("wrong-one", ceph.access_key, ceph.secret_key):
        assert secret not in f"{text} {store!r} {store.model_dump_json()}"


def test_an_endpoint_that_speaks_no_tls_is_said_so(moto: S3Server) -> None:
    store = at(moto, "bucket", endpoint_url=moto.endpoint_url.replace("http:", "https:"))
    with pytest.raises(StoreError, match="TLS failed: check the endpoint's https://"):
        store.read("key")


def test_without_keys_the_error_says_where_they_are_looked_for(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match="no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        ObjectStore(root="s3://bucket", endpoint_url=moto.endpoint_url).read("key")


def test_what_is_left_empty_comes_from_the_environment(
    server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(server, bucket, prefix="x").write("scene.tif", b"pixels")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert ObjectStore(root=f"s3://{bucket}/x").read("scene.tif") == b"pixels"
    # A store in a folder reads rasters on S3 too.
    assert ObjectStore(root=str(tmp_path)).describe(f"s3://{bucket}/x/scene.tif").size == 6


def test_fields_go_before_the_environment(server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    at(server, bucket).write("key", b"content")
    assert at(server, bucket).read("key") == b"content"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"root": ""}, "the root is empty"),
        ({"root": "s3://"}, "names no bucket"),
        ({"root": "s3://key:hidden@bucket/prefix"}, "names no bucket"),
        *(
            ({"root": f"s3://bucket/{prefix}"}, r"the root has blanks at its ends, `//`, `\.` or `\.\.`, and S3 takes")
            for prefix in ("v1 ", "v1/ ", "/v1", "a//v1", "a/../v1", "a/./v1")
        ),
        ({"root": "gs://key:hidden@bucket"}, "is neither a folder nor s3://bucket/prefix"),
        ({"root": "s3:/bucket/prefix"}, "is neither a folder nor s3://bucket/prefix"),
        ({"root": "S3:bucket"}, "is neither a folder nor s3://bucket/prefix"),
        ({"root": "x", "endpoint_url": "minio:9000"}, "is not the URL of a server"),
        ({"root": "x", "endpoint_url": "http://key:hidden@minio:9000"}, "is not the URL of a server"),
        ({"root": "x", "endpoint_url": "http://minio:9000/path"}, "is not the URL of a server"),
        ({"root": "x", "endpoint_url": "http://minio:9000?key=hidden"}, "is not the URL of a server"),
        ({"root": "x", "endpoint_url": "http://minio:90000"}, "is not the URL of a server"),
        ({"root": "x", "endpoint_url": "http://minio:port"}, "is not the URL of a server"),
        ({"root": "x", "endpoint_url": "http://my_minio:9000"}, "host 'my_minio' is no host name"),
        ({"root": "x", "endpoint_url": "http://-minio:9000"}, "host '-minio' is no host name"),
        ({"root": "x", "secret_key": "hidden"}, "one of access_key and secret_key is missing"),
    ],
)
def test_wrong_settings_are_refused_and_not_repeated(fields: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        ObjectStore(**fields)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_of_the_environment_that_is_no_url_is_said_so(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "minio:9000")
    with pytest.raises(UsageError, match=rf"^{variable}: the endpoint is not the URL of a server: use http://"):
        ObjectStore(root="s3://bucket").read("key")


@pytest.mark.parametrize(
    "url", ["http://minio.example.:9000/", " http://[::1]:9000 ", "http://10.0.0.5", "https://a-b.c"]
)
def test_other_endpoints_are_urls_of_servers(url: str) -> None:
    assert ObjectStore(root="x", endpoint_url=url).endpoint == url.strip().rstrip("/")


def test_keys_are_not_shown(moto: S3Server, bucket: str) -> None:
    store = at(moto, bucket)
    moto.create_bucket(bucket)
    store.write("key", b"")
    for text in (repr(store), str(store), store.model_dump_json(), repr(store.model_dump())):
        assert moto.secret_key not in text
        assert moto.access_key not in text


def test_a_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert ObjectStore(root="here").uri("key") == f"{tmp_path}/here/key"
    assert ObjectStore(root="~/there").root == "/home/somebody/there"
    assert ObjectStore(root="s3://bucket/prefix/").uri("key") == "s3://bucket/prefix/key"


def test_a_refused_request_names_the_right_that_a_policy_must_allow() -> None:
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    for request, right in (("PutObject", "PutObject"), ("HeadObject", "GetObject"), ("ListObjectsV2", "ListBucket")):
        error = refusal("s3://bucket/key on AWS", "us-east-1", ClientError(answer, request))  # type: ignore[arg-type]
        assert str(error) == (
            "s3://bucket/key on AWS: access denied (AccessDenied): check the keys, and that the bucket's policy allows "
            f"s3:{right}"
        )


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that this process may read but not write to."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.geteuid() != 0:
        yield folder
        return
    open_to_all = [path for path in tmp_path.parents if path.is_relative_to("/tmp")]
    modes = {path: path.stat().st_mode for path in [tmp_path, *open_to_all]}
    for path in modes:
        path.chmod(modes[path] | 0o055)
    os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_folder_that_may_not_be_written_to_is_said_so(locked: Path) -> None:
    store = ObjectStore(root=str(locked / "store"))
    assert store.read("folder/key") is None
    for call in ("write", "create"):
        said = f"no permission to write in {locked}: let this user write in this folder, or choose another folder"
        with pytest.raises(StoreError, match=rf"^{locked}/store/folder: {said}$"):
            getattr(store, call)("folder/key", b"")


def test_a_root_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"")
    store = ObjectStore(root=str(root))
    for call in (store.read, lambda key: store.write(key, b""), lambda key: store.create(key, b"")):
        with pytest.raises(StoreError, match=rf"^{root}/folder\S*: a part of the path is a file$"):
            call("folder/key")


@pytest.mark.parametrize(
    "raster",
    [
        "",
        "a\0b",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "s3://bucket/folder/",
        "http://host/scene.tif",
        "https://host",
        "https://host/folder/",
        "https://host/scene.tif?token=hush",
        "https://user:hush@host/scene.tif",
        "https://*/scene.tif",
        "https://127.1/scene.tif",
        "https://host:a/scene.tif",
        "file:///scene.tif",
        "gs://bucket/scene.tif",
        "/vsicurl/http://host/scene.tif",
        "/vsimem/scene.tif",
        "/vsizip/scene.zip/scene.tif",
        "/vsis3/bucket/scene.tif",
        "WMS:http://host/?layers=x",
    ],
)
def test_rasters_that_gdal_would_go_elsewhere_for_are_refused(raster: str) -> None:
    with pytest.raises(UsageError) as error:
        locate(raster)
    assert "\n" not in str(error.value)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("raster", "uri"),
    [
        ("scene 1.tif", "{here}/scene 1.tif"),
        ("./a/../ü.tif", "{here}/ü.tif"),
        ("{here}/a/b/../../ü.tif", "{here}/ü.tif"),
        ("link/../ü.tif", "{here}/far/ü.tif"),
        ("link/ü.tif", "{here}/link/ü.tif"),
        ("link/inner/../ü.tif", "{here}/link/ü.tif"),
        ("NETCDF:scene.nc:var", "{here}/NETCDF:scene.nc:var"),
        ("/data/scene.tif", "/data/scene.tif"),
        ("s3://bucket/a/scene #1?.tif", "s3://bucket/a/scene #1?.tif"),
        ("https://host/a/scene.tif", "https://host/a/scene.tif"),
        ("HTTPS://Host.Example:443/a b%20ü.tif", "https://host.example/a%20b%20%C3%BC.tif"),
        ("https://[::1]:8443/scene.tif", "https://[::1]:8443/scene.tif"),
    ],
)
def test_other_rasters_are_paths_or_objects(
    raster: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert locate(raster.format(here=tmp_path)) == uri.format(here=tmp_path)
