from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.support import servers
from tests.support.servers import (
    HOST,
    CephMissingError,
    S3Server,
    _first_port_of_the_system,
    free_port,
    install_ceph,
    moto_server,
)


def _refuses(endpoint_url: str) -> bool:
    address = urlsplit(endpoint_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return True
    finally:
        connection.close()
    return False


def _status(error: pytest.ExceptionInfo[ClientError]) -> int:
    status: int = error.value.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_a_free_port_is_reserved_for_this_process() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50
    assert max(ports) < _first_port_of_the_system()
    for port in ports:
        # Another test process tries the same, and takes another port.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, port))
        with socket.create_server((HOST, port)):
            pass


@pytest.mark.parametrize(("first", "smallest"), [(1024, 10_081), (10_500, 10_081), (16_000, 10_081), (32_768, 12_768)])
def test_a_port_is_found_wherever_the_ports_of_the_system_begin(
    monkeypatch: pytest.MonkeyPatch, first: int, smallest: int
) -> None:
    monkeypatch.setattr(servers, "_first_port_of_the_system", lambda: first)
    assert all(port >= smallest for port in [free_port() for _ in range(5)])


def test_moto_stores_objects(moto: S3Server, bucket: str) -> None:
    moto.create_bucket(bucket)
    moto.client().put_object(Bucket=bucket, Key="a/scene 1.tif", Body=b"pixels")

    assert moto.client().get_object(Bucket=bucket, Key="a/scene 1.tif")["Body"].read() == b"pixels"


def test_moto_writes_only_once_when_asked(moto: S3Server, bucket: str) -> None:
    moto.create_bucket(bucket)
    moto.client().put_object(Bucket=bucket, Key="key", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError) as error:
        moto.client().put_object(Bucket=bucket, Key="key", Body=b"second", IfNoneMatch="*")

    assert _status(error) == 412


def test_a_stopped_server_starts_again_on_its_port_and_ends_with_its_block_even_when_that_fails() -> None:
    endpoint_urls = []

    def use_and_fail() -> None:
        with moto_server() as server:
            endpoint_urls.append(server.endpoint_url)
            server.create_bucket("before")
            server.stop()
            assert _refuses(server.endpoint_url)
            server.stop()

            server.start()
            assert server.client().list_buckets()["Buckets"] == []
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert _refuses(endpoint_urls[0])


def test_the_command_prints_exports_and_stops_when_told() -> None:
    command = [sys.executable, "-m", "tests.support.servers", "moto"]
    project = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            exports = [process.stdout.readline() for _ in range(4)]
            shell = "".join(exports) + 'echo "$AWS_ENDPOINT_URL $AWS_SECRET_ACCESS_KEY"'
            endpoint, secret = subprocess.check_output(["sh", "-c", shell], text=True).split()
            assert secret == "no/real+secret"
            assert not _refuses(endpoint)
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert _refuses(endpoint)


def test_without_ceph_and_without_root_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(CephMissingError, match=r"apt-get install .*radosgw"):
        install_ceph()


@pytest.mark.s3
def test_ceph_refuses_a_wrong_secret(ceph: S3Server, bucket: str) -> None:
    ceph.create_bucket(bucket)

    with pytest.raises(ClientError) as error:
        ceph.client(aws_secret_access_key="wrong").list_objects_v2(Bucket=bucket)

    assert _status(error) == 403


@pytest.mark.s3
def test_ceph_writes_only_once_when_asked(ceph: S3Server, bucket: str) -> None:
    ceph.create_bucket(bucket)
    ceph.client().put_object(Bucket=bucket, Key="key", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError) as error:
        ceph.client().put_object(Bucket=bucket, Key="key", Body=b"second", IfNoneMatch="*")

    assert _status(error) == 412
    assert ceph.client().get_object(Bucket=bucket, Key="key")["Body"].read() == b"first"


@pytest.mark.s3
def test_ceph_keeps_its_data_over_a_restart(ceph: S3Server, bucket: str) -> None:
    body = bytes(range(256)) * 4096
    ceph.create_bucket(bucket)
    ceph.client().put_object(Bucket=bucket, Key="key", Body=body)

    ceph.stop()
    assert _refuses(ceph.endpoint_url)
    ceph.start()

    assert ceph.client().get_object(Bucket=bucket, Key="key")["Body"].read() == body
