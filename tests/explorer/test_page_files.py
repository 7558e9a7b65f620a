"""The files of the built page: their forms, their ETags, and how long browsers keep them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from rasterembed.explorer.header_fields import accepted_encodings, has_etag
from rasterembed.explorer.page_files import PageFiles
from rasterembed.explorer.problems import add_handlers
from rasterembed.store.object_store import ObjectStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a built page: the page, a script in three forms, a file without a compressed form, and other files."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>Explorer</title>")
    script = static / "assets/page-ABCD1234.js"
    script.write_text("let page = 1;")
    script.with_name(f"{script.name}.br").write_bytes(b"brotli")
    script.with_name(f"{script.name}.gz").write_bytes(gzip.compress(script.read_bytes()))
    (static / "assets/LICENSES.txt").write_text("free")
    (static / "assets/notes.py").write_text("secret")
    (static / "assets/.hidden.js").write_text("secret")
    (tmp_path / "outside.js").write_text("secret")
    (static / "assets/link-ABCD1234.js").symlink_to(tmp_path / "missing.js")
    return static


@pytest.fixture
def service(folder: Path) -> TestClient:
    """Serve the files."""
    app, files = FastAPI(), PageFiles(folder)
    add_handlers(app, ObjectStore(root=str(folder)))

    @app.get("/")
    def page(request: Request) -> Response:
        return files.page(request)

    @app.get("/assets/{name}")
    def asset(name: str, request: Request) -> Response:
        return files.asset(request, name)

    return TestClient(app)


def encoding_and_body(service: TestClient, accepted: str) -> tuple[str | None, bytes]:
    with service.stream("GET", "/assets/page-ABCD1234.js", headers={"Accept-Encoding": accepted}) as answer:
        assert answer.status_code == 200
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        return answer.headers.get("Content-Encoding"), b"".join(answer.iter_raw())


def test_the_smallest_form_that_the_browser_takes_is_sent(service: TestClient) -> None:
    assert encoding_and_body(service, "gzip, deflate, br, zstd") == ("br", b"brotli")
    assert encoding_and_body(service, "*") == ("br", b"brotli")
    assert encoding_and_body(service, "br;q=0, gzip;q=0.5")[0] == "gzip"
    assert encoding_and_body(service, "identity") == (None, b"let page = 1;")
    assert encoding_and_body(service, "br;q=abc, *;q=0") == (None, b"let page = 1;")
    name, packed = encoding_and_body(service, "gzip")
    assert name == "gzip"
    assert gzip.decompress(packed) == b"let page = 1;"


def test_hashed_files_are_kept_for_ever_and_others_are_asked_for_again(service: TestClient) -> None:
    assert (
        "immutable" in service.get("/assets/page-ABCD1234.js", headers={"Accept-Encoding": ""}).headers["Cache-Control"]
    )
    for path in ("/", "/assets/LICENSES.txt"):
        first = service.get(path)
        assert first.headers["Cache-Control"] == "no-cache"
        again = service.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]


def test_each_form_has_its_own_etag(service: TestClient) -> None:
    tags = set()
    for accepted in ("br", "gzip", "identity"):
        with service.stream("GET", "/assets/page-ABCD1234.js", headers={"Accept-Encoding": accepted}) as answer:
            tags.add(answer.headers["ETag"])
    assert len(tags) == 3


@pytest.mark.parametrize(
    "name",
    ["notes.py", ".hidden.js", "..%2Foutside.js", "..%2F..%2Foutside.js", "%2Fetc%2Fpasswd", "link-ABCD1234.js",
     "page-ABCD1234.js.br", "a%00.js", "x" * 300 + ".js", "%2e%2e%2e"],
)  # fmt: skip
def test_no_other_file_is_served(service: TestClient, name: str) -> None:
    answer = service.get(f"/assets/{name}")
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_a_page_that_was_not_built_is_a_clear_problem(service: TestClient, folder: Path) -> None:
    (folder / "index.html").unlink()
    answer = service.get("/")
    assert answer.status_code == 503
    assert answer.json()["type"] == "page-missing"
    assert "make page" in answer.json()["detail"]
    assert "nodejs npm" in answer.json()["detail"]


def test_a_new_build_needs_no_restart(service: TestClient, folder: Path) -> None:
    old = service.get("/")
    (folder / "index.html").write_text("<!doctype html><title>New</title>")
    new = service.get("/", headers={"If-None-Match": old.headers["ETag"]})
    assert new.status_code == 200
    assert "New" in new.text


def test_header_fields_are_read_as_http_defines_them() -> None:
    assert has_etag('"a"', '"a"')
    assert has_etag('W/"a"', '"a"')
    assert has_etag("*", '"a"')
    assert not has_etag('"ab"', '"a"')
    assert not has_etag("", '"a"')
    assert accepted_encodings("") == {}
    assert accepted_encodings("GZIP;q=0.2,, br") == {"gzip": 0.2, "br": 1.0}
