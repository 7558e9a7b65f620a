"""Files are read over https from listed hosts only. The test's own server speaks TLS and sees every request."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.scene_row import failed_row
from rasterembed.errors import (
    DataError,
    ObjectMissingError,
    RasterChangedError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from rasterembed.raster.drivers import open_raster
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.scene import register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.source import default_dataset_id
from rasterembed.store import https
from rasterembed.store.https_url import canonical_url, checked_url, host_of, joined_url, resolve_host
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from tests.support.rasters import write
from tests.support.web_server import Handler, Script, WebServer, make_certificate, set_names, web_server

SIDE = 512


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "data.test", "other.test")


@pytest.fixture(scope="module")
def pixels() -> Any:
    return np.random.default_rng(1).integers(0, 255, (3, SIDE, SIDE)).astype("uint8")


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory, pixels: Any) -> bytes:
    path = tmp_path_factory.mktemp("cog") / "a.tif"
    return write(path, pixels, driver="COG", compress="deflate", blocksize=128, overviews="none").read_bytes()


@pytest.fixture
def site(certificate: tuple[Path, Path], cog: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Run a server with one raster. Its names have the address of loopback."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setattr(https, "RETRY_DELAYS_S", (0.0, 0.0))
    set_names(monkeypatch, {name: [["127.0.0.1"]] for name in ("data.test", "other.test")})
    with web_server(certificate[1]) as server:
        server.files["/2026/a.tif"] = cog
        yield server


@pytest.fixture
def store(tmp_path: Path, site: WebServer) -> ObjectStore:
    source = SourceStore(https_hosts=(f"data.test:{site.port}",), https_private=True)
    return ObjectStore(root=str(tmp_path / "store"), source_store=source)


def read(store: ObjectStore, uri: str) -> Any:
    source = register_scene(store, uri)
    with open_pixels(store, source.uri, inspect_scene(store, source)) as raster:
        return raster.read((1, 2, 3), Window(0, 0, SIDE, SIDE))[0]


def text(store: ObjectStore, uri: str) -> bytes:
    with store.open_uri(uri) as file:
        return file.read()


def test_a_raster_of_a_listed_host_is_read_with_few_requests(store: ObjectStore, site: WebServer, pixels: Any) -> None:
    uri = site.url("/2026/a.tif")
    np.testing.assert_array_equal(read(store, uri), pixels)
    source = register_scene(store, uri)
    assert (source.version, source.modified.isoformat(), source.remote) == ("first", "2026-06-01T12:00:00+00:00", True)
    site.requests.clear()
    with open_raster(store, uri) as raster:
        # The beginning of the file is one request, and one row of blocks is another.
        np.testing.assert_array_equal(raster.read(window=Window(0, 0, SIDE, 128)), pixels[:, :128])
        assert [headers["range"].split("-")[0] for _, _, headers in site.requests][:1] == ["bytes=0"]
        assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("hosts", "private", "said"),
    [
        ((), True, "the host data.test:{port} is not one of those that may be read"),
        (("data.test",), True, "the host data.test:{port} is not one of those"),  # Another port is another server.
        (("other.test:{port}",), True, "the host data.test:{port} is not one of those"),
        (("data.test:{port}",), False, "its address 127.0.0.1 is not public: .*`source_store.https_private`"),
    ],
)
def test_other_hosts_and_private_addresses_are_refused(
    hosts: tuple[str, ...], private: bool, said: str, tmp_path: Path, site: WebServer
) -> None:
    listed = tuple(host.format(port=site.port) for host in hosts)
    store = ObjectStore(root=str(tmp_path), source_store=SourceStore(https_hosts=listed, https_private=private))
    with pytest.raises(StoreError, match=said.format(port=site.port)):
        register_scene(store, site.url("/2026/a.tif"))
    assert site.requests == []


def test_without_a_source_store_nothing_is_read(tmp_path: Path, site: WebServer) -> None:
    store = ObjectStore(root=str(tmp_path))
    for use in (store.describe, store.open_uri):
        with pytest.raises(StoreError, match="is not one of those that may be read"):
            use(site.url("/2026/a.tif"))
    assert site.requests == []


def redirect(target: str, status: int = 302) -> Script:
    return lambda handler: handler.send(status, b"", Location=target)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://other.test:{port}/2026/a.tif?sig=hush", r"https://other.test:\d+/2026/a.tif: the host other.test"),
        ("https://169.254.169.254/latest/meta-data?hush", "the host 169.254.169.254 is not one of those"),
        ("//127.0.0.1:{port}/2026/a.tif", "the host 127.0.0.1:"),
        ("http://data.test:{port}/2026/a.tif", "only addresses that begin with https://"),
        ("file:///etc/passwd", "only addresses that begin with https://"),
        ("s3://bucket/key.tif", "only addresses that begin with https://"),
        ("https://user:hush@data.test:{port}/2026/a.tif", "the address holds a user or a password"),
        ("https://[hush", "not an address"),
        ("/moved.tif", "more than 5 redirects"),
        ("https://data.test:{port}/2026/a.tif", None),
        ("2026/a.tif?sig=hush", None),
    ],
)
def test_each_redirect_is_checked(
    target: str, said: str | None, store: ObjectStore, site: WebServer, pixels: Any
) -> None:
    site.scripts["/moved.tif"] = redirect(target.format(port=site.port))
    if said is None:
        np.testing.assert_array_equal(read(store, site.url("/moved.tif")), pixels)
        return
    with pytest.raises(StoreError, match=said) as caught:
        register_scene(store, site.url("/moved.tif"))
    assert "hush" not in str(caught.value)
    assert set(site.paths) == {"/moved.tif"}


def test_a_redirect_is_checked_again_while_pixels_are_read(store: ObjectStore, site: WebServer) -> None:
    site.scripts["/moved.tif"] = redirect("/2026/a.tif")

    def read_part() -> None:
        with open_raster(store, site.url("/moved.tif")) as raster:
            site.scripts["/moved.tif"] = redirect("https://169.254.169.254/")
            with pytest.raises(RasterioError):
                raster.read()

    with pytest.raises(StoreError, match=r"the host 169\.254\.169\.254 is not"):
        read_part()


def test_a_name_is_looked_up_once_for_each_connection_and_every_answer_is_checked(
    store: ObjectStore, site: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set_names(monkeypatch, {"data.test": [["127.0.0.1"], ["169.254.169.254"]]})
    connected: list[str] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        connected.append(address[0])
        return real(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", connect)
    assert store.describe(site.url("/2026/a.tif")).size > 0
    assert (connected, asked) == (["127.0.0.1"], ["data.test"])
    store.describe(site.url("/2026/a.tif"))  # It uses the open connection.
    assert (connected, asked) == (["127.0.0.1"], ["data.test"])
    again = ObjectStore(root=store.root, source_store=SourceStore(**store.source_store.model_dump()))  # type: ignore[union-attr]
    with pytest.raises(StoreError, match=r"data.test: its address 169.254.169.254 is link-local"):
        again.describe(site.url("/2026/a.tif"))
    assert connected == ["127.0.0.1"]
    # One bad address among several is enough.
    set_names(monkeypatch, {"data.test": [["127.0.0.1", "::ffff:169.254.169.254"]]})
    with pytest.raises(StoreError, match="is link-local"):
        again.describe(site.url("/2026/a.tif"))
    assert connected == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.215.14", True, True),
        ("2606:2800:21f::1", True, True),
        ("64:ff9b::5db8:d70e", True, True),  # 93.184.215.14 by NAT64
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("fd00::1", False, True),
        ("100.64.0.1", False, True),
        ("::ffff:10.1.2.3", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),  # 169.254.169.254 by NAT64
        ("2002:a9fe:a9fe::1", False, False),  # 169.254.169.254 by 6to4
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_which_addresses_are_allowed(
    address: str, public: bool, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_names(monkeypatch, {"name.test": [[address]]})
    for allow, expected in ((False, public), (True, private)):
        try:
            found = resolve_host("name.test", 443, private=allow)
        except StoreError:
            found = []
        assert found == ([address] if expected else []), (address, allow)


@pytest.mark.parametrize(
    ("host", "stored"),
    [
        ("Data.Example.org", "data.example.org"),
        ("data.example.org:443", "data.example.org"),
        ("data.example.org.:8443", "data.example.org:8443"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("[0:0::1]:8443", "[::1]:8443"),
        ("*.example.org", None),
        ("https://data.example.org", None),
        ("data.example.org/path", None),
        ("user@data.example.org", None),
        ("data.example.org:", None),
        ("data.example.org:99999", None),
        ("0x7f.1", None),
        ("", None),
    ],
)
def test_the_list_of_hosts_has_one_form(host: str, stored: str | None) -> None:
    if stored is not None:
        assert SourceStore(https_hosts=(host, host)).https_hosts == (stored,)
        assert SourceStore.model_validate({"https_hosts": f" {host}, {host}"}).https_hosts == (stored,)
        return
    with pytest.raises(UsageError, match="is no host"):
        SourceStore(https_hosts=(host,))


def test_a_certificate_of_an_unknown_authority_is_refused(
    store: ObjectStore, site: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StoreError, match=r"the certificate of data.test is not valid .*SSL_CERT_FILE"):
        store.describe(site.url("/2026/a.tif"))
    assert site.requests == []


def test_a_stac_item_is_read_with_its_files(store: ObjectStore, site: WebServer, tmp_path: Path, pixels: Any) -> None:
    assets = {}
    with rasterio.open(BytesIO(site.files["/2026/a.tif"])) as source:
        profile = source.profile | {"driver": "GTiff", "count": 1}
    for number, colour in enumerate(("red", "green", "blue")):
        with rasterio.open(tmp_path / "band.tif", "w", **profile) as file:
            file.write(pixels[number], 1)
        site.files[f"/2026/{colour}.tif"] = (tmp_path / "band.tif").read_bytes()
        assets[colour] = {"href": f"./{colour}.tif", "type": "image/tiff", "eo:bands": [{"common_name": colour}]}
    item = {"type": "Feature", "id": "scene", "properties": {"datetime": "2026-06-01T10:00:00Z"}, "assets": assets}
    # An API sends Items without an ETag and without parts.
    site.scripts["/2026/item.json"] = lambda handler: handler.send(200, json.dumps(item).encode())
    np.testing.assert_array_equal(read(store, site.url("/2026/item.json")), pixels)
    source = register_scene(store, site.url("/2026/item.json"))
    assert source.version.startswith("sha256-")
    assert [file.uri for file in source.files] == [site.url(f"/2026/{name}.tif") for name in ("red", "green", "blue")]
    assert default_dataset_id(source.files[0].uri).startswith("data.test-")
    assert source.remote


HOST = st.text(st.sampled_from("data.test@:[]#?/%\\\n 1é*\ud800"), max_size=12)


def in_one_line(function: Callable[[], str]) -> str | None:
    """Return the address that a function makes, or None if it refuses in one line."""
    try:
        return function()
    except (StoreError, UsageError) as error:
        return None if "\n" not in str(error) else str(error)


@given(start=st.sampled_from(["https://data.test/", "https://data.test", "//", "https:", "HTTPS://", ""]), rest=HOST)
def test_any_address_is_refused_or_stays_on_the_host(start: str, rest: str) -> None:
    url = in_one_line(lambda: canonical_url(start + rest))
    assert url is None or canonical_url(url) == url
    for base in ("https://data.test/a/b", "https://data.test/"):
        target = in_one_line(lambda base=base: checked_url(joined_url(base, start + rest), ("data.test",)))
        if target is not None:
            assert host_of(target) == ("data.test", 443)
            assert target.startswith("https://data.test/")
            assert target.isascii()
            assert target.isprintable()
            assert " " not in target


def test_a_changed_file_is_found(store: ObjectStore, site: WebServer, pixels: Any) -> None:
    uri = site.url("/2026/a.tif")
    source = register_scene(store, uri)
    profile = inspect_scene(store, source)
    site.versions["/2026/a.tif"] = '"second"'
    with pytest.raises(RasterChangedError, match=r"a.tif: it was changed since"):
        profile.check_unchanged(store, source)

    def read_part() -> None:
        with open_raster(store, uri) as raster:
            site.versions["/2026/a.tif"] = '"third"'
            with pytest.raises(RasterioError):
                raster.read()

    with pytest.raises(RasterChangedError, match="was changed while it was read"):
        read_part()


def whole(**headers: str) -> Script:
    """Answer with the whole file, although a part was asked for."""

    def answer(handler: Handler) -> None:
        handler.send(200, handler.site.files["/2026/a.tif"], **headers)

    return answer


def test_a_server_without_parts_is_read_as_a_whole_if_the_file_is_small(
    store: ObjectStore, site: WebServer, pixels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.scripts["/whole.tif"] = whole(ETag='W/"weak"')
    np.testing.assert_array_equal(read(store, site.url("/whole.tif")), pixels)
    # Without a strong ETag and a time, the content is the version.
    assert register_scene(store, site.url("/whole.tif")).version.startswith("sha256-")
    monkeypatch.setattr(https, "MAX_WHOLE_BYTES", 1000)
    with pytest.raises(StoreError, match="the server sends no parts of files"):
        register_scene(store, site.url("/whole.tif"))


def test_compressed_answers_are_read_as_a_whole_or_refused(store: ObjectStore, site: WebServer) -> None:
    packed = gzip.compress(b"text " * 1000)
    encoded = {"Content-Encoding": "gzip", "ETag": '"packed"'}
    site.scripts["/whole.json"] = lambda handler: handler.send(200, packed, **encoded)
    assert text(store, site.url("/whole.json")) == b"text " * 1000
    assert store.describe(site.url("/whole.json")).size == 5000
    site.scripts["/part.json"] = lambda handler: handler.send_file(packed, **encoded | {"ETag": ""}, etag='"x"')
    with pytest.raises(StoreError, match="compressed form of the file, whose parts cannot be read"):
        text(store, site.url("/part.json"))
    bomb = gzip.compress(bytes(2**26))
    site.scripts["/bomb.json"] = lambda handler: handler.send(200, bomb, **encoded)
    with pytest.raises(StoreError, match="damaged, or too long"):
        text(store, site.url("/bomb.json"))
    site.scripts["/other.json"] = lambda handler: handler.send(200, packed, **encoded | {"Content-Encoding": "br"})
    with pytest.raises(StoreError, match="compresses its answer as 'br'"):
        text(store, site.url("/other.json"))


def endless(status: int, headers: dict[str, str], pause_s: float) -> Script:
    """Send a body that never ends."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.close_connection = True
        for _ in range(100_000):
            handler.wfile.write(bytes(2**10 if pause_s == 0 else 1))
            handler.site.sent += 2**10
            time.sleep(pause_s)

    return answer


def test_an_endless_body_is_cut(store: ObjectStore, site: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "MAX_WHOLE_BYTES", 2**20)
    site.scripts["/endless"] = endless(200, {}, 0)
    with pytest.raises(StoreError, match="no parts of files"):
        text(store, site.url("/endless"))
    site.scripts["/part"] = endless(206, {"Content-Range": "bytes 0-0/5", "ETag": '"a"'}, 0)
    with pytest.raises(StoreError):
        store.describe(site.url("/part"))
    assert site.sent < 2**24


def test_a_slow_body_is_given_up(store: ObjectStore, site: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "RETRY_DELAYS_S", ())
    monkeypatch.setattr(https, "_READ_S", 0.3)
    monkeypatch.setattr(https, "_SLOWEST", 2**40)
    site.scripts["/slow"] = endless(206, {"Content-Range": "bytes 0-9999/10000", "Content-Length": "10000"}, 0.1)
    # The whole body would take a quarter of an hour.
    with pytest.raises(StoreUnavailableError, match=r"/slow: no answer \(TimeoutError\)"):
        text(store, site.url("/slow"))


def test_a_server_that_is_busy_is_asked_again_when_it_says(
    store: ObjectStore, site: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(https.time, "sleep", waited.append)  # type: ignore[attr-defined]
    answers = [(503, {"Retry-After": "7"}), (429, {"Retry-After": "100000"})]

    def busy(handler: Handler) -> None:
        if answers:
            status, headers = answers.pop(0)
            handler.send(status, b"", **headers)
        else:
            handler.send_file(b"done")

    site.scripts["/busy"] = busy
    assert store.describe(site.url("/busy")).size == 4
    assert [seconds for seconds in waited if seconds > 1] == [7.0, 60.0]
    site.scripts["/down"] = lambda handler: handler.send(500, b"")
    with pytest.raises(StoreUnavailableError, match=r"/down: the server does not answer now \(HTTP 500\)"):
        store.describe(site.url("/down"))
    assert site.paths.count("/down") == 3


def test_a_connection_that_breaks_is_tried_again(store: ObjectStore, site: WebServer) -> None:
    left = [2]

    def cut_off(handler: Handler) -> None:
        if left[0] == 0:
            handler.send_file(b"0123456789")
            return
        left[0] -= 1
        handler.close_connection = True
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 0-9/10")
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"0123")

    site.scripts["/cut"] = cut_off
    assert text(store, site.url("/cut")) == b"0123456789"


@pytest.mark.parametrize(
    ("status", "headers", "kind", "said"),
    [
        (404, {}, ObjectMissingError, r"there is no such file \(HTTP 404\)"),
        (403, {}, StoreError, r"access denied \(HTTP 403\)"),
        (400, {}, StoreError, r"the server refused \(HTTP 400\)"),
        (206, {"ETag": '"a"'}, StoreError, "does not say which part"),
        (206, {"ETag": '"a"', "Content-Range": "bytes 0-0/*"}, StoreError, "does not say which part"),
        (206, {"ETag": '"a"', "Content-Range": "bytes 5-5/10"}, StoreError, "sent another part"),
        (206, {"Content-Range": "bytes 0-0/1"}, StoreError, "no ETag and no Last-Modified"),
        (206, {"ETag": 'W/"a"', "Content-Range": "bytes 0-0/1"}, StoreError, "no ETag and no Last-Modified"),
    ],
)
def test_answers_that_cannot_be_used_are_named(
    status: int, headers: dict[str, str], kind: type[StoreError], said: str, store: ObjectStore, site: WebServer
) -> None:
    site.scripts["/x"] = lambda handler: handler.send(status, b"x", **headers)
    with pytest.raises(kind, match=said) as caught:
        store.describe(site.url("/x"))
    assert type(caught.value) is kind


def test_a_time_after_the_year_9999_is_no_time(store: ObjectStore, site: WebServer) -> None:
    late = {"Last-Modified": "Fri, 31 Dec 9999 23:59:59 -2359", "Content-Range": "bytes 0-0/1"}

    def send(handler: Handler) -> None:
        handler.send(206, b"x", **late)

    site.scripts["/late.tif"] = send
    source = register_scene(store, site.url("/late.tif"))
    assert source.modified == datetime(1970, 1, 1, tzinfo=UTC)
    listed = FoundScene(source.uri, modified=store.describe(source.uri).modified)
    assert failed_row("survey", listed, source.uri, "no").datetime == source.modified


def test_an_empty_file_is_named(store: ObjectStore, site: WebServer) -> None:
    site.files["/empty.tif"] = b""
    with pytest.raises(DataError, match=r"/empty.tif: the file is empty"):
        register_scene(store, site.url("/empty.tif"))


def test_secrets_of_a_redirect_reach_no_log(
    store: ObjectStore, site: WebServer, pixels: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site.scripts["/moved.tif"] = redirect("/2026/a.tif?sig=hush")
    np.testing.assert_array_equal(read(store, site.url("/moved.tif")), pixels)
    assert any("sig=hush" in path for path in site.paths)
    assert "hush" not in caplog.text


def test_a_file_that_names_other_addresses_makes_gdal_ask_for_nothing(
    store: ObjectStore, site: WebServer, tmp_path: Path, cog: bytes
) -> None:
    victim = f"/vsicurl/{site.url('/victim.tif')}"
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        (tmp_path / "a.tif").write_bytes(cog)
        rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
        vrt = (tmp_path / "a.vrt").read_text().replace("a.tif", victim)
        with rasterio.open(tmp_path / "a.tif") as source:
            profile = {**source.profile, "driver": "GTiff"}
            data = source.read()
        with rasterio.open(tmp_path / "b.tif", "w", **profile) as file:
            file.write(data)
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=victim)
    site.files |= {"/a.tif": vrt.encode(), "/b.tif": (tmp_path / "b.tif").read_bytes()}
    with pytest.raises(DataError, match="VRT and other files that refer to other files are never read"):
        read(store, site.url("/a.tif"))
    with pytest.raises(DataError, match="names another file as its overview"):
        read(store, site.url("/b.tif"))
    assert "/victim.tif" not in " ".join(site.paths)
    assert not [path for path in site.paths if path.endswith((".aux.xml", ".ovr", ".tfw", "/"))]


def test_a_server_that_stops_while_pixels_are_read_is_named(store: ObjectStore, site: WebServer) -> None:
    def read_all() -> None:
        with open_raster(store, site.url("/2026/a.tif")) as raster:
            site.scripts["/2026/a.tif"] = lambda handler: handler.send(500, b"")
            with pytest.raises(RasterioError):
                raster.read()

    with pytest.raises(StoreUnavailableError, match="does not answer now"):
        read_all()
