"""`make deploy` and `make upload` name wrong settings in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows import command
from flows.raster_embeddings import raster_embeddings
from scripts import deploy, upload
from scripts.deploy_output import run_without_hints, without_hints
from tests.support.servers import free_port

PROJECT = Path(__file__).parents[2]
Script = Callable[[pytest.MonkeyPatch], str]


class _Answers(BaseHTTPRequestHandler):
    """Answer every request in the same way."""

    status: int
    body: bytes

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = self.body
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class _Locked(_Answers):
    """Answer as a Prefect server with a password does to a request with another password."""

    status, body = 401, b'{"exception_message": "Unauthorized"}'


class _NotFound(_Answers):
    """Answer as a Prefect server does to a request for an address outside its API."""

    status, body = 404, b'{"detail": "Not Found"}'


class _Version(_Answers):
    """Answer as a Prefect server does to a request for its version."""

    status, body = 200, b'"3.8.8"'


@contextmanager
def _server(answers: type[_Answers]) -> Iterator[str]:
    """Run a server, and yield its address."""
    server = HTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def locked_url() -> Iterator[str]:
    with _server(_Locked) as url:
        yield f"{url}/api"


def _deploy(monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """Run the deploy script, which must exit with an error, and return the error."""
    monkeypatch.setattr("sys.argv", ["scripts.deploy", *options])
    with pytest.raises(SystemExit) as ended:
        deploy.main()
    assert isinstance(ended.value.code, str)  # Python prints a text on standard error, and exits with status 1.
    return ended.value.code


def _upload(monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the upload script behind a bucket that takes everything, and return the error with which it must end."""
    monkeypatch.setenv("UPLOAD_ENDPOINT", "http://s3.invalid")
    monkeypatch.setattr("boto3.client", lambda *_, **__: _Bucket())
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        upload.main(Path("scene.tif"))
    assert isinstance(ended.value.code, str)
    return ended.value.code


def _run_flow(monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a flow as a command, which must exit with an error, and return the error."""
    with pytest.raises(SystemExit) as ended:
        command.run(raster_embeddings, ["scene.tif"])
    assert isinstance(ended.value.code, str)
    return ended.value.code


class _Bucket:
    def upload_file(self, *_: str) -> None:
        pass

    def head_object(self, **_: str) -> dict[str, str]:
        return {"ETag": '"1"'}


@pytest.mark.parametrize("script", [_deploy, _upload, _run_flow])
def test_a_refused_password_is_named_in_one_line(
    script: Script, monkeypatch: pytest.MonkeyPatch, locked_url: str
) -> None:
    with temporary_settings({PREFECT_API_URL: locked_url, PREFECT_API_AUTH_STRING: "admin:s3cret"}):
        error = script(monkeypatch)
    assert locked_url in error
    assert "PREFECT_API_AUTH_STRING" in error
    assert "401" in error
    assert "\n" not in error
    assert "s3cret" not in error


@pytest.mark.parametrize("script", [_deploy, _upload, _run_flow])
def test_a_server_that_does_not_answer_is_named_in_one_line(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: f"http://user:s3cret@{address}"}):
        error = script(monkeypatch)
    assert f"http://{address}" in error
    assert "PREFECT_API_URL" in error
    assert "\n" not in error
    assert "s3cret" not in error


@pytest.mark.parametrize("script", [_deploy, _run_flow])
def test_an_address_without_api_is_named_in_one_line(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(_NotFound) as url, temporary_settings({PREFECT_API_URL: url}):
        error = script(monkeypatch)
    assert error == f"no Prefect API is at {url}: PREFECT_API_URL ends in /api, as in http://HOST:4200/api"


def test_without_a_docker_engine_nothing_is_put_on_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(deploy, "make_pools", lambda *_: pytest.fail("the pools were made"))
    with _server(_Version) as url, temporary_settings({PREFECT_API_URL: f"{url}/api"}):
        error = _deploy(monkeypatch)
    assert error.startswith("no Docker engine answers")
    assert "make deploy DEPLOY=\"--name '*/*-process'\"" in error
    assert "\n" not in error


def test_a_name_that_matches_no_deployment_ends_with_a_list_before_the_server_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without a server, an error about the name shows that the name was checked first.
    with temporary_settings({PREFECT_API_URL: None}):
        for typo in ("raster-embeddings/embed-proces", "embed-proces", "raster-embeddings/qa-process", "x/*", "a/b/c"):
            error = _deploy(monkeypatch, "--name", "qa-report/qa-process", "--name", typo)
            assert error.startswith(f"no such deployment: '{typo}'; there are: ")
            assert "raster-embeddings/embed-process" in error
            assert "embed-shards/embed-share-docker-gpu" in error
            assert "\n" not in error


@pytest.mark.parametrize(
    ("wanted", "pools"),
    [
        (["*/*-process"], {"process"}),
        (["embed-share-docker-gpu"], {"docker-gpu"}),
        (["embed-shards/*"], {"docker", "docker-gpu", "process"}),
        (["qa-report/qa-docker", "*-process"], {"docker", "process"}),
    ],
)
def test_a_choice_of_deployments_is_also_a_choice_of_pools(wanted: list[str], pools: set[str]) -> None:
    assert set(deploy.choose_deployments(wanted).values()) == pools


def test_a_flow_is_known_by_its_own_name() -> None:
    # The function of the flow `embed-shards` has another name, `embed_share`.
    assert deploy.choose_deployments(["embed-shards/embed-share-process"]) == {"embed-share-process": "process"}
    every = [deployment["name"] for deployment in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]]
    assert list(deploy.choose_deployments(["*"])) == every


@pytest.mark.parametrize("limit", ["0", "-3", "many", "1.5"])
def test_a_limit_below_one_is_refused(
    limit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scripts.deploy", f"--limit={limit}"])
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SystemExit, match="2"):
        deploy.main()
    assert f"argument --limit: give a whole number from 1, not '{limit}'" in capsys.readouterr().err


def test_the_block_never_has_a_relative_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, kept in {
        "data/../store": f"{tmp_path}/store",
        "~/store": "/home/somebody/store",
        "/srv/store": "/srv/store",
        "s3://bucket/prefix": "s3://bucket/prefix",
    }.items():
        monkeypatch.setenv("RASTER_ROOT", given)
        assert deploy.root_of_block() == kept
    monkeypatch.delenv("RASTER_ROOT")
    assert deploy.root_of_block() is None


def test_a_wrong_root_is_named_before_the_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTER_ROOT", "ftp://host/store")
    with temporary_settings({PREFECT_API_URL: None}):
        error = _deploy(monkeypatch)
    assert error.startswith("RASTER_ROOT: ")
    assert "ftp://host/store" in error
    assert "\n" not in error


OUTPUT = """\
Deploying flows with selected deployment configurations...
╭────────────────────────────╮
│ Deploying embed-process    │
╰────────────────────────────╯
Your Prefect workers will attempt to load your flow from: /work/flows/raster_embeddings.py. To see more options for \
managing your flow's code, run:

\t$ prefect init

Running deployment build steps...
 > Running run_shell_script step...
0.2.0
 > Running run_shell_script step...
abcdef
 > Running build_docker_image step...
Step 1/2 : FROM debian
╭──────────────────────────────────────────────────────────────────────────────╮
│ Deployment 'raster-embeddings/embed-process' successfully created with id '1'. │
╰──────────────────────────────────────────────────────────────────────────────╯

View Deployment in UI: http://127.0.0.1:4200/deployments/deployment/1


To execute flow runs from these deployments, start a worker in a separate terminal that pulls work from the 'process' \
work pool:

\t$ prefect worker start --pool 'process'

To schedule a run for this deployment, use the following command:

\t$ prefect deployment run 'raster-embeddings/embed-process'

An error of a new kind
"""
"""The output of `prefect deploy`, version 3.8.8."""


def test_the_output_of_prefect_is_one_line_a_deployment_and_what_an_image_build_says() -> None:
    assert list(without_hints(OUTPUT.splitlines(keepends=True))) == [
        "> Running build_docker_image step...",
        "Step 1/2 : FROM debian",
        "Deployment 'raster-embeddings/embed-process' successfully created with id '1'.",
        "An error of a new kind",
    ]


def test_a_deploy_that_fails_prints_all_of_its_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = "print('Deploying one'); print('why'); raise SystemExit(3)"
    assert run_without_hints([sys.executable, "-c", program], tmp_path) == 3
    assert capfd.readouterr().out == ("why\nthe command failed. This is its whole output:\nDeploying one\nwhy\n")


def test_an_upload_without_the_variables_of_the_stack_names_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.upload", str(tmp_path / "scene.tif")],
        env={name: value for name, value in os.environ.items() if name not in ("UPLOAD_ENDPOINT", "RASTER_ROOT")},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == (
        "no UPLOAD_ENDPOINT and no RASTER_ROOT: first set the variables of docker/.env and docker/stack.env\n"
    )
    assert done.returncode == 1
