"""A server that answers as an S3 server in another region, with another clock, or not as an S3 server at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rasterembed.errors import StoreError
from rasterembed.store.object_store import ObjectStore

LONG_AGO = "Mon, 01 Jan 2018 12:00:00 GMT"

CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "read": lambda store: store.read("key"),
    "write": lambda store: store.write("key", b"x"),
    "create": lambda store: store.create("key", b"x"),
    "open": lambda store: store.open("key"),
    "sizes": lambda store: store.sizes("folder"),
    "find": lambda store: list(store.find("folder")),
}


@contextmanager
def answering(status: int, body: str, headers: dict[str, str], *, date: str | None = None) -> Iterator[str]:
    """Run a server that gives the same answer to every request, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in ({"Content-Type": "application/xml"} | headers).items():
                self.send_header(name, value)
            content = b"" if self.command == "HEAD" else body.encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = answer  # noqa: N815

        def date_time_string(self, timestamp: float | None = None) -> str:
            return date or super().date_time_string(timestamp)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def store_at(url: str, **fields: str) -> ObjectStore:
    return ObjectStore(root="s3://bucket", endpoint_url=url, access_key="who", secret_key="hush", **fields)


def xml(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>hush</Message></Error>"


@pytest.mark.parametrize("kind", ["text/html", "application/xml"])
@pytest.mark.parametrize("call", CALLS)
def test_a_web_server_in_place_of_an_s3_server_is_said_so(call: str, kind: str) -> None:
    with answering(200, "<html>login</html>", {"Content-Type": kind}) as url, pytest.raises(StoreError) as raised:
        CALLS[call](store_at(url))
    assert str(raised.value).endswith(f" on {url}: the server does not answer as an S3 server does: check the endpoint")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", ["AuthorizationHeaderMalformed", "PermanentRedirect"])
def test_another_region_is_named(call: str, code: str) -> None:
    status = 301 if code == "PermanentRedirect" else 400
    headers = {"x-amz-bucket-region": "eu-north-1"}
    with answering(status, xml(code), headers) as url, pytest.raises(StoreError) as raised:
        CALLS[call](store_at(url))
    assert str(raised.value).endswith(
        f" on {url}: the bucket is in region eu-north-1, and the request was for us-east-1: set AWS_REGION=eu-north-1, "
        "or the region of the block or of the source store"
    )


@pytest.mark.parametrize("headers", [{}, {"x-amz-bucket-region": "a b\x1b[31m"}])
def test_a_region_that_the_server_does_not_name_is_asked_for(headers: dict[str, str]) -> None:
    answer = answering(400, xml("AuthorizationHeaderMalformed"), headers)
    with answer as url, pytest.raises(
        StoreError, match="the bucket is in another region, and the request was for eu-west-1: set AWS_REGION=…, or"
    ):  # fmt: skip
        store_at(url, region="eu-west-1").read("key")


@pytest.mark.parametrize("call", CALLS)
def test_another_clock_is_named(call: str) -> None:
    answer = answering(403, xml("RequestTimeTooSkewed"), {}, date=LONG_AGO)
    with answer as url, pytest.raises(StoreError, match="the clocks of this machine and of the server differ: set "):
        CALLS[call](store_at(url))


def test_a_refused_request_at_the_right_time_is_about_the_rights() -> None:
    with (
        answering(403, xml("AccessDenied"), {}) as url,
        pytest.raises(StoreError, match=r"access denied \(AccessDenied\): check the keys"),
    ):
        store_at(url).open("key")


def test_a_region_that_is_none_is_named() -> None:
    with pytest.raises(
        StoreError, match=r": the region 'EU North' cannot be used: correct AWS_REGION, or the region of the block"
    ):
        store_at("http://127.0.0.1:1", region="EU North").read("key")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("ExpiredToken", "the session token has expired: get new keys, and set AWS_SESSION_TOKEN"),
        ("InvalidToken", "correct AWS_SESSION_TOKEN, or unset it"),
        ("InvalidObjectState", "the object is in an archive: restore it first"),
        ("QuotaExceeded", "the quota of the bucket or of the user is used up"),
        ("XMinioStorageFull", "the server's disks are full"),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 507])
@pytest.mark.parametrize("call", ["read", "open"])
def test_an_answer_with_another_remedy_than_the_keys(call: str, status: int, code: str, remedy: str) -> None:
    with answering(status, xml(code), {}) as url, pytest.raises(StoreError) as raised:
        CALLS[call](store_at(url))
    assert remedy in str(raised.value)
    assert str(raised.value).endswith(f"({code})")
    assert "check the keys" not in str(raised.value)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without settings of AWS, whose server does not exist."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    return monkeypatch


def error_of_a_read() -> str:
    with pytest.raises(StoreError) as raised:
        ObjectStore(root="s3://bucket").read("key")
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_an_unknown_profile_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_PROFILE", "nosuch")
    assert "AWS_PROFILE: the files of AWS have no profile 'nosuch'" in error_of_a_read()


@pytest.mark.parametrize("name", ["config", "credentials"])
def test_a_broken_file_of_aws_is_named(environment: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no section\n")
    assert f"{tmp_path / name}: this file of AWS cannot be read as an INI file: correct it" in error_of_a_read()


def test_a_missing_file_with_a_token_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    text = error_of_a_read()
    assert f"{tmp_path / 'token'}: No such file or directory: let this user read the file, or correct the" in text


def test_half_of_a_pair_of_keys_is_told_which_half_is_missing(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "who")
    assert "one of the two keys is missing (AWS_SECRET_ACCESS_KEY, from env" in error_of_a_read()


def test_a_line_break_in_a_key_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "who\n")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with answering(200, "", {"ETag": '"1"'}) as url:
        environment.setenv("AWS_ENDPOINT_URL", url)
        text = error_of_a_read()
    assert "a key holds a line break or another control character" in text
    assert "hush" not in text


def test_a_proxy_that_does_not_answer_is_not_called_the_endpoint(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "who")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    environment.setenv("AWS_ENDPOINT_URL", "http://s3.example.invalid")
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    text = error_of_a_read()
    assert "the proxy does not answer: check HTTPS_PROXY and HTTP_PROXY" in text
    assert "check the endpoint" not in text


def test_a_name_that_no_bucket_can_have(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="there can be no such bucket, because its name has other characters than"):
        ObjectStore(root="embeddings").describe("s3://my bucket/scene.tif")


def test_a_file_of_certificates_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for bundle, reason in ((tmp_path / "none.pem", "No such file or directory"), (junk, "no certificate")):
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        with pytest.raises(StoreError, match=rf"AWS_CA_BUNDLE: {bundle} cannot be read as certificates \(.*{reason}"):
            store_at("https://127.0.0.1:1").read("key")
