"""Checkpoints: from a hub (a real HTTP server that answers as the hub does), from folders, and the demo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from safetensors.numpy import load_file, save_file

from rasterembed.errors import DataError, UsageError
from rasterembed.model.checkpoints import find_checkpoint, make_demo_checkpoint
from rasterembed.model.choice import Dinov3, resolve_model
from rasterembed.model.embedder import Embedder
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed

COMMIT = "5" * 40
TOKEN = "hf_accepted"


class Hub(ThreadingHTTPServer):
    """A hub of models on loopback: tree and resolve endpoints, and its errors with their headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.down = False
        """Every answer is an internal error."""
        self.cuts_off = False
        """Weights end after the first thousand bytes."""
        self.paths: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        self.server.paths.append(f"{self.command} {path}")
        if self.server.down:
            return self._send(500, b"down")
        api = path.startswith("api/models/")
        owner, name, *rest = (*path.removeprefix("api/models/").split("/"), "")
        repository = f"{owner}/{name}"
        files = self.server.files.get(repository)
        if files is None:
            # without a token the hub does not say whether the repository exists
            return self._refuse(404 if self.headers["authorization"] else 401, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", "v1", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if api:
            return self._send_json(self._tree(files) if rest[0] == "tree" else {"id": repository, "sha": COMMIT})
        if repository in self.server.gated and self.headers["authorization"] != f"Bearer {TOKEN}":
            return self._refuse(403 if self.headers["authorization"] else 401, "GatedRepo")
        content = files[rest[2]]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._send(200, content, headers)

    @staticmethod
    def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
        def entry(name: str, content: bytes) -> dict[str, Any]:
            size, sha256 = len(content), hashlib.sha256(content).hexdigest()
            large = {"lfs": {"oid": sha256, "size": size, "pointerSize": 130}} if size > 10_000 else {}
            return {"type": "file", "path": name, "size": size, "oid": sha256[:40]} | large

        return [entry(name, content) for name, content in files.items()]

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code}, in many words"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:1000] if self.server.cuts_off and len(body) > 10_000 else body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


_FIND = """
import json, sys
from rasterembed.model.checkpoints import find_checkpoint
from rasterembed.errors import DataError
for arguments in json.loads(sys.argv[1]):
    try:
        checkpoint = find_checkpoint(*arguments)
        names = ("name", "revision", "weights_sha256", "token_side", "hidden_size", "prefix_tokens")
        found = {name: getattr(checkpoint, name) for name in names}
        found |= {"folder": checkpoint.folder, "mean": checkpoint.normalisation.mean}
    except DataError as error:
        found = {"error": str(error)}
    print("found", json.dumps(found | {"torch": "torch" in sys.modules, "folder": str(found.get("folder"))}))
"""

NOWHERE = "http://127.0.0.1:9"


def find_all(hub: Hub | str, home: Path, *calls: tuple[str | None, ...], **environment: str) -> list[dict[str, Any]]:
    """`find_checkpoint` in a process of its own, which reads the hub's address from the environment as it starts.

    Args:
        hub: the hub, or an address.
        home: where its client and the demo model keep their caches.
        calls: arguments of each call.
        environment: more variables.

    Returns:
        Of each call the checkpoint's fields or its `error`; and `torch`, whether PyTorch was loaded by then.
    """
    address = hub if isinstance(hub, str) else f"http://127.0.0.1:{hub.server_port}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _FIND, json.dumps(calls)],
        env=inherited | settings | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    results = [
        json.loads(line.removeprefix("found ")) for line in done.stdout.splitlines() if line.startswith("found ")
    ]
    assert len(results) == len(calls)
    for result in results:
        assert "\n" not in result.get("error", "")
        assert TOKEN not in result.get("error", "")
    return results


def find(hub: Hub | str, home: Path, *call: str | None, **environment: str) -> dict[str, Any]:
    """One call of `find_all`."""
    return find_all(hub, home, call, **environment)[0]


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_download(hub: Hub, tmp_path: Path, tiny_vit: Path) -> None:
    files = content_of(tiny_vit)
    hub.files["lab/tiny"] = files | {"README.md": b"read me", "pytorch_model.bin": b"never fetched"}
    found, by_tag = find_all(hub, tmp_path, ("lab/tiny",), ("lab/tiny", "v1"))
    assert found["revision"] == COMMIT
    assert by_tag == found
    assert found["weights_sha256"] == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert (found["hidden_size"], found["token_side"], found["prefix_tokens"]) == (64, 16, 5)
    assert found["mean"] == [0.485, 0.456, 0.406]
    assert not found["torch"]
    fetched = {path.rsplit("/", 1)[1] for path in hub.paths if path.startswith("GET lab/tiny/resolve")}
    assert fetched == {"config.json", "preprocessor_config.json", "model.safetensors"}

    # What was planned by commit asks the hub for nothing.
    hub.paths.clear()
    assert find(hub, tmp_path, "lab/tiny", COMMIT) == found
    assert [path for path in hub.paths if "lab/tiny" in path] == []
    hub.down = True
    assert find(hub, tmp_path, "lab/tiny") == found
    assert find(NOWHERE, tmp_path, "lab/tiny", HF_HUB_OFFLINE="1") == found


def test_gated(hub: Hub, tmp_path: Path, tiny_vit: Path) -> None:
    hub.files["lab/gated"] = content_of(tiny_vit)
    hub.gated.add("lab/gated")
    expected = (
        "model 'lab/gated' is gated: accept its licence at https://huggingface.co/lab/gated, then log in "
        "(hf auth login) or set HF_TOKEN, or give a model block with your token"
    )
    calls = (("lab/gated",), ("lab/gated", None, "hf_of_somebody"), ("lab/gated", None, TOKEN))
    nobody, somebody, accepted = find_all(hub, tmp_path, *calls)
    assert nobody["error"] == somebody["error"] == expected
    assert accepted["revision"] == COMMIT
    assert find(hub, tmp_path / "other", "lab/gated", HF_TOKEN=TOKEN)["revision"] == COMMIT


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path, tiny_vit: Path) -> None:
    hub.files["lab/tiny"] = content_of(tiny_vit)
    calls = (("lab/typo",), ("lab/typo", None, TOKEN), ("lab/tiny", "v9"), ("a/b/c",))
    missing, with_token, revision, odd = (found["error"] for found in find_all(hub, tmp_path, *calls))
    known = "facebook/dinov3-vits16-pretrain-lvd1689m"
    assert missing.startswith("model 'lab/typo' is not on the hub, or is private: check the id at https://hugg")
    assert f"(known models: {known}, " in missing
    assert with_token == missing
    assert revision.startswith("model 'lab/tiny' has no revision 'v9'")
    assert odd.startswith(
        f"model 'a/b/c' is neither a hub id (owner/name), a folder, nor 'demo' (known models: {known}, "
    )


def test_no_hub(hub: Hub, tmp_path: Path, tiny_vit: Path) -> None:
    expected = "model 'lab/tiny' is no folder, is not in the local cache, and cannot be downloaded: check the name"
    hub.files["lab/tiny"] = content_of(tiny_vit)
    assert find(NOWHERE, tmp_path, "lab/tiny")["error"].startswith(expected)
    assert find(hub, tmp_path, "lab/tiny", HF_HUB_OFFLINE="1")["error"].startswith(expected)
    hub.down = True
    assert find(hub, tmp_path, "lab/tiny")["error"].startswith(expected)


def test_without_the_hub_a_wrong_name_is_said_to_be_wrong_and_near_names_are_given(tmp_path: Path) -> None:
    """Only the hub knows whether a model exists. Without it, the name and the connection may be wrong."""
    calls = ("facebook/dinov3-vits16-typo", "sat493m", "facebook/dinov3-vitl16-pretrain-sat493m")
    typo, part, known = (found["error"] for found in find_all(NOWHERE, tmp_path, *((name,) for name in calls)))
    assert "check the name (known models: facebook/dinov3-vits16-pretrain-lvd1689m, " in typo
    assert "give a local folder, such as ./model" in typo
    sat = "facebook/dinov3-vitl16-pretrain-sat493m, facebook/dinov3-vit7b16-pretrain-sat493m, ..."
    assert f"(known models: {sat})" in part
    assert "check the name" not in known
    assert "check the connection to https://huggingface.co/facebook/dinov3-vitl16-pretrain-sat493m" in known


def test_a_file_of_a_checkpoint_names_its_folder(tiny_vit: Path) -> None:
    with pytest.raises(DataError, match=rf"is a file: give its folder, {tiny_vit}$"):
        find_checkpoint(str(tiny_vit / "model.safetensors"))


def test_a_wrong_model_is_found_before_pytorch_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from rasterembed.errors import DataError\n"
        "from rasterembed.model.choice import Dinov3, resolve_model\n"
        "try:\n    resolve_model(Dinov3(model=sys.argv[1]), 224)\n"
        "except DataError:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "none")], capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_download_that_breaks_off(hub: Hub, tmp_path: Path, tiny_vit: Path) -> None:
    hub.files["lab/tiny"] = content_of(tiny_vit)
    hub.cuts_off = True
    # the client has patience, which a test has not
    error = find(hub, tmp_path, "lab/tiny", HF_HUB_DOWNLOAD_TIMEOUT="1")["error"]
    assert error.startswith("model 'lab/tiny' could not be downloaded (")
    hub.cuts_off = False
    assert find(hub, tmp_path, "lab/tiny")["revision"] == COMMIT


def test_pickled_weights_are_not_loaded(hub: Hub, tmp_path: Path, tiny_vit: Path) -> None:
    hub.files["lab/old"] = {
        name if name != "model.safetensors" else "pytorch_model.bin": data
        for name, data in content_of(tiny_vit).items()
    }
    assert "has no safetensors weights in" in find(hub, tmp_path, "lab/old")["error"]
    assert not [path for path in hub.paths if path.endswith("pytorch_model.bin")]
    folder = copy(tiny_vit, tmp_path / "folder")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no safetensors weights in .*folder; other formats are not loaded"):
        find_checkpoint(str(folder))


# Folders


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def change(path: Path, **values: Any) -> None:
    """Set values of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_a_folder(tiny_vit: Path, tiny_convnext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_checkpoint(str(tiny_vit))
    digest = hashlib.sha256((tiny_vit / "model.safetensors").read_bytes()).hexdigest()
    assert (found.name, found.folder, found.revision) == (str(tiny_vit), tiny_vit, None)
    assert (found.weights_sha256, found.family, found.token_side) == (digest, "dinov3_vit", 16)
    other = find_checkpoint(str(tiny_convnext))
    assert (other.family, other.token_side, other.hidden_size, other.prefix_tokens) == ("dinov3_convnext", 32, 64, 1)
    # wherever a worker starts, a plan's folder is the same
    monkeypatch.chdir(tiny_vit.parent)
    assert find_checkpoint(f"./{tiny_vit.name}") == found
    assert resolve_model(Dinov3(model=tiny_vit.name), 64).id == str(tiny_vit)


def test_weights_in_several_files(tiny_vit: Path, tmp_path: Path) -> None:
    folder = copy(tiny_vit, tmp_path / "folder")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"second")
    files = sorted(folder.glob("*.safetensors"))
    digests = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    assert find_checkpoint(str(folder)).weights_sha256 == hashlib.sha256(digests.encode()).hexdigest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"config.json": {"model_type": "dinov2"}}, 'is of type "dinov2": DINOv3 ViT and ConvNeXt checkpoints are'),
        ({"config.json": {"model_type": None}}, "is of type null"),
        ({"config.json": {"hidden_size": None}}, "config.json: hidden_size is missing"),
        (
            {"config.json": {"patch_size": [16, 16]}},
            "config.json: patch_size: Input should be a valid integer, not [16",
        ),
        ({"preprocessor_config.json": {"image_mean": None}}, "needs image_mean and image_std, three numbers each"),
        ({"preprocessor_config.json": {"image_std": [0.5]}}, "needs image_mean and image_std, three numbers each"),
        ({"preprocessor_config.json": {"image_std": [0.5, 0, 1]}}, "needs image_mean and image_std"),
        ({"preprocessor_config.json": {"image_mean": ["a", "b", "c"]}}, "needs image_mean and image_std"),
    ],
)
def test_files_that_say_too_little(
    tiny_vit: Path, tmp_path: Path, damage: dict[str, dict[str, Any]], message: str
) -> None:
    folder = copy(tiny_vit, tmp_path / "folder")
    for file, values in damage.items():
        change(folder / file, **values)
    with pytest.raises(DataError) as caught:
        find_checkpoint(str(folder))
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_files_that_are_missing_or_no_json(tiny_vit: Path, tmp_path: Path, file: str) -> None:
    folder = copy(tiny_vit, tmp_path / "folder")
    for content, message in (("[]", "is not a JSON object"), ("{", "is not JSON"), (None, "is missing")):
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(content)
        with pytest.raises(DataError, match=rf"{file} {message}"):
            find_checkpoint(str(folder))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        find_checkpoint(str(tmp_path / "none"))


# Loading


def embedder(folder: Path) -> Embedder:
    return Embedder(resolve_model(Dinov3(model=str(folder)), 64), "cpu")


def test_damaged_weights(tiny_vit: Path, tmp_path: Path) -> None:
    folder = copy(tiny_vit, tmp_path / "folder")
    data = (folder / "model.safetensors").read_bytes()
    for damaged in (data[: len(data) // 2], b"\xff" * 100, b""):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match=r"does not load from .*folder: ") as caught:
            embedder(folder)
        assert "\n" not in str(caught.value)


def test_weights_that_lack_tensors(tiny_vit: Path, tmp_path: Path) -> None:
    """Transformers would draw the missing ones at random, and every process others."""
    folder = copy(tiny_vit, tmp_path / "folder")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "layer.1" in name)
    save_file({n: t for n, t in tensors.items() if n != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        DataError, match=r"lack 1 tensors of the model that config\.json describes \(such as .*layer\.1"
    ):
        embedder(folder)


def test_weights_of_another_shape(tiny_vit: Path, tmp_path: Path) -> None:
    folder = copy(tiny_vit, tmp_path / "folder")
    change(folder / "config.json", intermediate_size=96)
    shapes = r"model\.layer\.0\.mlp\.down_proj\.weight has the shape \(64, 128\), and config\.json asks for \(64, 96\)"
    with pytest.raises(DataError, match=f"do not fit config.json: {shapes}"):
        embedder(folder)


def test_weights_changed_after_planning(tiny_vit: Path, tmp_path: Path) -> None:
    folder = copy(tiny_vit, tmp_path / "folder")
    planned = resolve_model(Dinov3(model=str(folder)), 64)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"has other weights here \([0-9a-f]{12}\) than the dataset was planned with"):
        Embedder(planned, "cpu")


def test_a_side_that_does_not_fit(tiny_vit: Path, tiny_convnext: Path) -> None:
    with pytest.raises(UsageError, match=r"the model's input is 48 px a side, but .* takes multiples of 32"):
        resolve_model(Dinov3(model=str(tiny_convnext)), 48)
    assert resolve_model(Dinov3(model=str(tiny_convnext), input_size=64), 48).input_size == 64
    assert resolve_model(Dinov3(model=str(tiny_vit)), 48).input_size == 48


def test_dimensions_by_pooling(tiny_vit: Path) -> None:
    found = {pooling: resolve_model(Dinov3(model=str(tiny_vit), pooling=pooling), 64).dimensions
             for pooling in ("cls", "mean", "cls+mean")}  # fmt: skip
    assert found == {"cls": 64, "mean": 64, "cls+mean": 128}


# The demo


@pytest.mark.slow
def test_the_demo_is_the_same_everywhere(tmp_path: Path) -> None:
    """Its digest stands in fingerprints: made anew in another cache, by another process, it is the same."""
    first, again = find_all(NOWHERE, tmp_path, ("demo",), ("demo",))
    assert first == again
    assert (first["torch"], first["revision"], first["name"]) == (True, None, "demo")
    made = Path(first["folder"])
    # A process that finds the weights some seconds old notes their digest in the folder `checked`.
    assert {path.name for path in made.parent.iterdir()} - {"checked"} == {made.name}
    assert find(NOWHERE, tmp_path, "demo") == first | {"torch": False}  # one that is there needs no PyTorch

    make_demo_checkpoint(tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    assert first["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    tensors = load_file(weights)
    assert sum(tensor.size for tensor in tensors.values()) < 1_500_000
    # the draws are NumPy's, which are the same on every processor
    draws = np.random.Generator(np.random.PCG64(3)).random(192, dtype=np.float32)
    np.testing.assert_array_equal(tensors["embeddings.cls_token"].ravel(), (2 * draws - 1) * np.float32(0.125))


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = find(NOWHERE, tmp_path, "demo", XDG_CACHE_HOME=str(tmp_path / "file"))["error"]
    assert error.startswith("model 'demo' cannot be written to ")
    assert error.endswith("set XDG_CACHE_HOME to a folder that can be written")


def test_the_demo_is_marked(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "r.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs="EPSG:32635",
        transform=Affine(10, 0, 500_000, 0, -10, 6_700_000),
    ) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8))
    store = ObjectStore(root=str(tmp_path / "store"))
    manifest = embed(store, str(tmp_path / "r.tif"), dataset_id="d", grid=Grid(size=32))
    assert (manifest.model, manifest.rows, manifest.dimensions) == ("demo (untrained)", 4, 192)
