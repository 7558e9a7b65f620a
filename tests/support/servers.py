"""Run real S3 servers on loopback, for tests and for trying things out.

- `moto_server` starts in a second and needs only packages from pip. It accepts any signature, and loses its data when
  it is stopped.
- `ceph_gateway` is Ceph's RADOS gateway with one monitor and one OSD, from Debian's packages. It checks signatures,
  makes conditional and multipart writes, and keeps its data when it is stopped.

    python -m tests.support.servers ceph      prints what to export, and runs until Ctrl-C
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import boto3
from botocore.config import Config

from tests.support.debian import InstallationError, can_install, install_packages

HOST = "127.0.0.1"
REGION = "us-east-1"
ACCESS_KEY = "raster-tests"
# The key has a slash and a plus sign, as real secrets do. Code that does not escape them in a URL fails with this key.
SECRET_KEY = "no/real+secret"

CEPH_PACKAGES = ("ceph-mon", "ceph-osd", "radosgw", "ceph-common")
CEPH_COMMANDS = (
    "ceph-mon",
    "ceph-osd",
    "radosgw",
    "radosgw-admin",
    "ceph",
    "ceph-authtool",
    "monmaptool",
)


class CephMissingError(Exception):
    """Raised if Ceph is not installed and cannot be installed. The message says why."""


class Daemons(Protocol):
    """The processes behind a server."""

    def start(self) -> None:
        """Start the processes, and return when the server answers."""

    def stop(self) -> None:
        """Stop the processes, and return when all have ended."""


@dataclass(frozen=True)
class S3Server:
    """A running S3 server, with its address and keys."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    _daemons: Daemons = field(repr=False)
    tls_endpoint_url: str | None = None
    """Address of the same server with TLS, if it has one."""
    certificate: Path | None = None
    """Certificate of `tls_endpoint_url`. No authority has signed it."""

    def start(self) -> None:
        """Start the server again after `stop`, on the same port. Ceph has its old data, moto is empty."""
        self._daemons.start()

    def stop(self) -> None:
        """End the server's processes, as in an outage. If they have ended already, do nothing."""
        self._daemons.stop()

    def client(self, **overrides: Any) -> Any:
        """Return a boto3 S3 client; `overrides` replace arguments of `boto3.client`."""
        arguments: dict[str, Any] = {
            "endpoint_url": self.endpoint_url,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
            "config": Config(s3={"addressing_style": "path"}),
        }
        return boto3.client("s3", **(arguments | overrides))

    def create_bucket(self, name: str) -> None:
        """Create the bucket `name`."""
        self.client().create_bucket(Bucket=name)

    def environment(self) -> dict[str, str]:
        """Return the variables that point the AWS tools at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }


class ServerProcess:
    """A command in its own process group. Its children end with it."""

    def __init__(self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None) -> None:
        self._name = command[0]
        self._output = output
        with output.open("ab") as stream:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._popen.pid

    def check(self) -> None:
        """Raise RuntimeError if the process has ended."""
        if (code := self._popen.poll()) is not None:
            raise RuntimeError(f"{self._name} ended with {code}:\n{self.last_output()}")

    def last_output(self) -> str:
        return self._output.read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """Kill the process group, as a crash would."""
        if self._popen.returncode is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def end(self) -> None:
        # Before `wait`, the system does not reuse the number of an ended process. So the signal reaches only our group.
        if self._popen.returncode is None:
            os.killpg(self._popen.pid, signal.SIGTERM)
            try:
                self._popen.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self._popen.pid, signal.SIGKILL)
                self._popen.wait()


_FIRST_PORT = 10_081
"""Smallest port of a server. Browsers refuse to open some smaller ones."""

_TRIED_PORTS = 1000
"""Number of ports that are tried."""

_RESERVED: list[socket.socket] = []
"""Sockets that reserve the ports of this process until it ends."""


def free_port() -> int:
    """Return a port of loopback that nothing listens on, and that no other process gets from this function.

    A server that a test starts binds its port seconds later. The system gives the ports of its own range to any
    connection meanwhile, so this function takes a port below that range, if enough ports are below it. A UDP socket
    with the same number reserves the port until this process ends: two test processes cannot both bind it.

    Raises:
        RuntimeError: if every port is taken.
    """
    below = _first_port_of_the_system()
    ports = range(max(_FIRST_PORT, below - 20_000), below)
    if len(ports) < _TRIED_PORTS:  # Some machines with many connections let the system give nearly all ports.
        ports = range(_FIRST_PORT, 65_536)
    for port in random.SystemRandom().sample(ports, _TRIED_PORTS):
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reservation.bind((HOST, port))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
        except OSError:
            reservation.close()
            continue
        _RESERVED.append(reservation)
        return port
    raise RuntimeError(f"no free port from {ports.start} to {ports.stop - 1} on {HOST}")


def _first_port_of_the_system() -> int:
    """Return the first of the ports that the system gives to connections and to servers that ask for any port."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768  # The usual value of Linux. Other systems begin at a higher port.


def _wait_for_answer(host: str, port: int, processes: Sequence[ServerProcess], timeout: float = 240) -> None:
    """Wait until a GET gets any answer. Raise RuntimeError if a process ends or the time is over."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for process in processes:
            process.check()
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse()
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)  # It does not listen yet.
        finally:
            connection.close()
    raise RuntimeError(f"no answer on {host}:{port} in {timeout} s:\n{processes[-1].last_output()}")


class _Moto:
    def __init__(self, folder: Path, host: str, port: int) -> None:
        self._folder = folder
        self._host = host
        self._port = port
        self._process: ServerProcess | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "--host", self._host, "--port", str(self._port)]
        self._process = ServerProcess(command, self._folder / "moto.out")
        _wait_for_answer(self._host, self._port, [self._process])

    def stop(self) -> None:
        if self._process:
            self._process.end()
            self._process = None


class _Ceph:
    """One monitor, one OSD on a sparse file and one gateway, all in `folder`."""

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self._folder = folder
        self._host = host
        self._port = port
        self._processes: list[ServerProcess] = []
        self._monitor = f"[v2:{HOST}:{free_port()}]"
        self._cluster_id = str(uuid.uuid4())
        self._conf = folder / "ceph.conf"
        self._keyring = folder / "rgw" / "keyring"
        self.tls_port = free_port()
        self.certificate = folder / "certificate.pem"
        self._key_and_certificate = folder / "rgw" / "gateway.pem"

    def create(self) -> None:
        """Write the configuration and an empty monitor store. No process needs to run."""
        for name in ("mon", "osd", "rgw", "run", "log"):
            (self._folder / name).mkdir()
        self._conf.write_text(self._configuration())
        self._make_certificate()
        monmap = str(self._folder / "monmap")
        self._run(
            "monmaptool",
            "--create",
            "--fsid",
            self._cluster_id,
            "--addv",
            "a",
            self._monitor,
            monmap,
        )
        self._run("ceph-mon", *self._c, "--mkfs", "--id", "a", "--monmap", monmap)
        self._run(
            "ceph-authtool",
            "--create-keyring",
            "--name",
            "client.rgw.a",
            "--gen-key",
            str(self._keyring),
        )

    def _make_certificate(self) -> None:
        key = self._folder / "key.pem"
        files = ("-keyout", str(key), "-out", str(self.certificate))
        names = ("-subj", "/CN=gateway", "-addext", f"subjectAltName=IP:{self._host}")
        self._run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names)
        self._key_and_certificate.write_text(key.read_text() + self.certificate.read_text())

    def start(self) -> None:
        self._spawn("ceph-mon", "--id", "a")
        first_time = not (self._folder / "osd" / "fsid").exists()
        if first_time:
            osd_id = str(uuid.uuid4())
            self._run("ceph", *self._c, "osd", "new", osd_id)
            self._run("ceph-osd", *self._c, "--id", "0", "--mkfs", "--osd-uuid", osd_id)
        self._spawn("ceph-osd", "--id", "0")
        if first_time:
            keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
            user = ("--uid", "test", "--display-name", "test")
            self._run("radosgw-admin", *self._c, "user", "create", *user, *keys)
        # Without `--ms_mon_client_mode=crc`, the gateway waits for ever for the secure mode. That mode needs
        # authentication, which is off in this cluster.
        name = ("--name", "client.rgw.a", "--keyring", str(self._keyring))
        self._spawn("radosgw", *name, "--ms_mon_client_mode=crc")
        _wait_for_answer(self._host, self._port, self._processes)

    def stop(self) -> None:
        while self._processes:
            self._processes.pop().end()

    @property
    def _c(self) -> tuple[str, str]:
        return ("--conf", str(self._conf))

    def _spawn(self, command: str, *arguments: str) -> None:
        output = self._folder / "log" / f"{command}.out"
        self._processes.append(ServerProcess([command, *self._c, *arguments, "--foreground"], output))

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")

    def _configuration(self) -> str:
        return f"""\
[global]
fsid = {self._cluster_id}
mon host = {self._monitor}
mon initial members = a
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
# There is only one disk, so keep one copy of each object.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
mon allow pool size one = true
mon max pg per osd = 1000
osd crush chooseleaf type = 0
osd objectstore = bluestore
bluestore block create = true
bluestore block size = {6 * 2**30}
osd memory target = 1000000000
mon data = {self._folder}/mon
osd data = {self._folder}/osd
rgw data = {self._folder}/rgw
run dir = {self._folder}/run
log file = {self._folder}/log/$name.log
# No admin socket: nothing uses it, and its path could be longer than the system allows.
admin socket =
[client.rgw.a]
rgw frontends = beast endpoint={self._host}:{self._port} \
 ssl_endpoint={self._host}:{self.tls_port} ssl_certificate={self._key_and_certificate}
rgw thread pool size = 16
# The gateway accepts a topic with a password only over TLS. The tests send a header which says that a proxy does TLS.
rgw trust forwarded https = true
"""


def install_ceph() -> None:
    """Install Ceph's Debian packages, if its commands are missing.

    Raises:
        CephMissingError: if the commands are missing and the user is not root, or if apt-get is missing or fails.
    """
    if all(shutil.which(command) for command in CEPH_COMMANDS):
        return
    by_hand = f"apt-get install --no-install-recommends {' '.join(CEPH_PACKAGES)}"
    if not can_install():
        raise CephMissingError(f"Ceph is not installed; as root: {by_hand}")
    try:
        install_packages(*CEPH_PACKAGES)
    except InstallationError as error:
        raise CephMissingError(str(error)) from error


@contextmanager
def _running(daemons: Daemons, host: str, port: int) -> Iterator[S3Server]:
    try:
        daemons.start()
        yield S3Server(f"http://{host}:{port}", ACCESS_KEY, SECRET_KEY, REGION, daemons)
    finally:
        daemons.stop()


@contextmanager
def moto_server(host: str = HOST) -> Iterator[S3Server]:
    """Run moto's server in its own process. A test can kill it while a client is connected."""
    with tempfile.TemporaryDirectory(prefix="moto-") as folder:
        port = free_port()
        with _running(_Moto(Path(folder), host, port), host, port) as server:
            yield server


@contextmanager
def ceph_gateway(host: str = HOST) -> Iterator[S3Server]:
    """Run Ceph's gateway with a new, empty cluster, which is deleted at the end. Only the gateway listens on `host`.

    Raises:
        CephMissingError: if Ceph is not installed and cannot be installed.
    """
    install_ceph()
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        port = free_port()
        ceph = _Ceph(Path(folder), host, port)
        ceph.create()
        with _running(ceph, host, port) as server:
            tls = f"https://{host}:{ceph.tls_port}"
            yield replace(server, tls_endpoint_url=tls, certificate=ceph.certificate)


SERVERS = {"moto": moto_server, "ceph": ceph_gateway}


def main() -> None:
    """Run the server named on the command line until Ctrl-C (or SIGTERM)."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.servers", description=main.__doc__)
    parser.add_argument("server", choices=SERVERS)
    name: str = parser.parse_args().server

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        with SERVERS[name]() as server:
            for variable, value in server.environment().items():
                print(f"export {variable}={shlex.quote(value)}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    except CephMissingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
