"""Checkpoints that somebody damaged or wrote on purpose: each is refused in one line, or harmless."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from rasterembed.errors import DataError, UsageError
from rasterembed.model import weights
from rasterembed.model.checkpoints import find_checkpoint
from rasterembed.model.choice import Dinov3, resolve_model
from rasterembed.model.embedder import Embedder
from rasterembed.store import checked_files

HUGE = 10**12


@pytest.fixture
def vit(tiny_vit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_vit, tmp_path / "vit"))


@pytest.fixture
def convnext(tiny_convnext: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_convnext, tmp_path / "convnext"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def network_of(folder: Path) -> Any:
    """Load the network of a checkpoint with transformers."""
    # Transformers take long to import, and not every test process needs them.
    from rasterembed.model.transformers_loading import load_with_transformers

    return load_with_transformers(find_checkpoint(str(folder)))


def load(folder: Path) -> None:
    """Plan with a checkpoint, and load its network."""
    resolve_model(Dinov3(model=str(folder), device="cpu"), 64)
    with torch.inference_mode():
        network_of(folder)


def refusal(folder: Path) -> str:
    """Return the error of a checkpoint that cannot be used. Little memory may be used until then."""
    tracemalloc.start()
    try:
        with pytest.raises((DataError, UsageError)) as caught:
            load(folder)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text.partition(str(folder / "config.json"))[2]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", HUGE, ": hidden_size: Input should be less than or equal to 16384, not 1000000000000"),
        ("hidden_size", -64, ": hidden_size: Input should be greater than or equal to 1, not -64"),
        ("hidden_size", 16384, ": it describes a network of "),
        ("hidden_size", 63, ": hidden_size 63 is not a multiple of 4 times num_attention_heads 2"),
        ("hidden_size", [64], ": hidden_size: Input should be a valid integer, not [64]"),
        ("hidden_size", 1e400, ": hidden_size: Input should be a valid integer, not Infinity"),
        ("hidden_size", True, ": hidden_size: Input should be a valid integer, not true"),
        ("num_hidden_layers", HUGE, ": num_hidden_layers: Input should be less than or equal to 512"),
        ("num_hidden_layers", 512, ": it describes a network of "),
        ("num_hidden_layers", 0, ": num_hidden_layers: Input should be greater than"),
        ("intermediate_size", HUGE, ": intermediate_size: Input should be less than"),
        ("intermediate_size", 131072, ": it describes a network of "),
        ("num_attention_heads", 0, ": num_attention_heads: Input should be greater than"),
        ("patch_size", 0, ": patch_size: Input should be greater than"),
        ("patch_size", "16", ': patch_size: Input should be a valid integer, not "16"'),
        ("num_register_tokens", HUGE, ": num_register_tokens: Input should be less than"),
        ("num_register_tokens", None, ": num_register_tokens: Input should be a valid integer, not null"),
        ("num_channels", 4, ": num_channels: Input should be 3, not 4"),
        ("layer_norm_eps", float("nan"), ": layer_norm_eps: Input should be"),
        ("rope_theta", 0, ": rope_theta: Input should be greater than 0, not 0"),
        ("hidden_act", "softmax", ": hidden_act 'softmax' is not known to transformers"),
        ("hidden_act", "os.system" * 20, ": hidden_act: String should match pattern '^[A-Za-z0-9_]{1,32}$', not \"o"),
        ("model_type", ["dinov3_vit"], ""),
        ("model_type", {"a": "\x1b[31m"}, ""),
    ],
)
def test_odd_fields_of_a_vit(vit: Path, field: str, value: object, message: str) -> None:
    change(vit / "config.json", **{field: value})
    assert refusal(vit).startswith(message)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_sizes", [HUGE] * 4, ": hidden_sizes.0: Input should be less than"),
        ("hidden_sizes", [16384] * 4, ": it describes a network of "),
        ("hidden_sizes", 64, ": hidden_sizes: Input should be a valid list, not 64"),
        ("hidden_sizes", [], ": hidden_sizes: List should have at least 4 items"),
        ("hidden_sizes", [16] * 100_000, ": hidden_sizes: List should have at most 4 items"),
        ("depths", [1, 1, 1, -1], ": depths.3: Input should be greater than"),
        ("depths", [1, 1, 1], ": depths: List should have at least 4 items"),
        ("depths", [512] * 4, ": it describes a network of "),
    ],
)
def test_odd_fields_of_a_convnext(convnext: Path, field: str, value: object, message: str) -> None:
    change(convnext / "config.json", **{field: value})
    assert refusal(convnext).startswith(message)


@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation": "somebody/kernel", "attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "flash_attention_2", "use_kernels": True},
        {"num_labels": 50_000_000},
        {"id2label": {"not a number": "x"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"auto_map": {"AutoModel": "evil.Model"}, "architectures": ["Evil"]},
        {"transformers_weights": "other/weights.safetensors"},
        {"fusion_config": {"patch_embeddings": True}},
        {"dtype": "float99", "torch_dtype": "float99", "return_dict": False, "output_hidden_states": True},
        {"per_layer_config": {"0": {"hidden_size": 3}}},
        {"problem_type": 7, "drop_path_rate": "x", "image_size": [HUGE, HUGE], "patch_size": 16},
    ],
)
def test_fields_that_would_make_transformers_do_more_change_nothing(
    vit: Path, tiny_vit: Path, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched from the hub")

    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", fetch)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = transformers.AutoModel.from_pretrained(tiny_vit).eval()
    change(vit / "config.json", **fields)
    with torch.inference_mode():
        network = network_of(vit)
        assert torch.equal(network(images).last_hidden_state, expected(images).last_hidden_state)
    assert network.config._attn_implementation == "sdpa"


def test_an_adapter_beside_the_weights_is_not_loaded(vit: Path) -> None:
    (vit / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}')
    load(vit)


def _deep(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 200_000)


def _long_number(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "dinov3_vit", "hidden_size": ' + "9" * 10_000 + "}")


def _not_text(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00{")


def _large(folder: Path) -> None:
    with (folder / "config.json").open("w") as file:
        file.truncate(2**34)


def _pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def _folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_deep, " is not JSON"),
        (_long_number, " is not JSON"),
        (_not_text, " is not JSON"),
        (_large, " has more than 16777216 bytes"),
        (_pipe, " is not a file"),
        (_folder, " is not a file"),
    ],
)
@pytest.mark.timeout(120)  # Opening the named pipe would take for ever.
def test_a_configuration_that_is_no_json_file(vit: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(vit)
    assert refusal(vit).startswith(message)


@pytest.mark.parametrize("mean", [[123.7, 116.3, 103.5], [float("nan")] * 3, [-0.1, 0.5, 0.5], [True, 0.5, 0.5], 0.5])
def test_odd_processors(vit: Path, mean: object) -> None:
    change(vit / "preprocessor_config.json", image_mean=mean)
    with pytest.raises(DataError, match=r"preprocessor_config.json needs image_mean and image_std, .* from 0 to 1"):
        find_checkpoint(str(vit))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../other.safetensors"}}, r"lists '\.\./other\.safetensors', which is not a file in"),
        ({"weight_map": {"a": "/etc/passwd"}}, "lists '/etc/passwd', which is not a file in"),
        ({"weight_map": ["model-1.safetensors"]}, "weight_map is not a list of tensors and their files"),
        (None, r"model\.safetensors\.index\.json is missing"),
    ],
)
def test_an_index_that_leads_elsewhere(vit: Path, index: object, message: str) -> None:
    shutil.copy(vit / "model.safetensors", vit.parent / "other.safetensors")
    (vit / "model.safetensors").rename(vit / "model-1.safetensors")
    if index is not None:
        (vit / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=message):
        load(vit)


def test_weights_in_several_files_are_loaded(vit: Path, tiny_vit: Path) -> None:
    tensors = load_file(vit / "model.safetensors")
    (vit / "model.safetensors").unlink()
    halves = {"model-1.safetensors": sorted(tensors)[::2], "model-2.safetensors": sorted(tensors)[1::2]}
    for name, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, vit / name, {"format": "pt"})
    weight_map = {key: name for name, keys in halves.items() for key in keys}
    (vit / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with torch.inference_mode():
        whole, parts = (network_of(folder) for folder in (tiny_vit, vit))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_random_damage(kind: str, request: pytest.FixtureRequest) -> None:
    """Every variant loads or is refused in one line. No other exception is raised."""
    folder: Path = request.getfixturevalue(kind)
    path = folder / "config.json"
    original = json.loads(path.read_text())
    odd = [None, -1, 0, 1, 3, HUGE, 0.5, float("inf"), "", "x", [], [1], [[]], {}, True, "gelu"]
    rng = random.Random(12)
    for _ in range(60):
        damaged = dict(original)
        for field in rng.sample(sorted(original), rng.randint(1, 3)):
            if rng.random() < 0.3:
                del damaged[field]
            else:
                damaged[field] = rng.choice(odd)
        path.write_text(json.dumps(damaged))
        error = ""
        try:
            load(folder)
        except (DataError, UsageError) as caught:
            error = str(caught)
        assert "\n" not in error, damaged
        assert len(error) < 1000, damaged


# The digest of the weights


@pytest.mark.parametrize("family", ["vit", "convnext"])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weights_without_usable_vectors(
    family: str, value: float, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    folder: Path = request.getfixturevalue(family)
    tensors = load_file(folder / "model.safetensors")
    last = [name for name in tensors if name.startswith(("norm.", "layer_norm."))]
    assert len(last) == 2
    save_file(tensors | {name: np.full_like(tensors[name], value) for name in last}, folder / "model.safetensors")
    with pytest.raises(DataError, match="give vectors that are zero or not finite: download the checkpoint again"):
        Embedder(resolve_model(Dinov3(model=str(folder), device="cpu"), 64), "cpu")
    # The weights are wrong, and not this version of transformers.
    assert not caplog.records


def test_a_digest_does_not_believe_the_name_of_a_file(tiny_vit: Path, tmp_path: Path) -> None:
    """The hub's cache names a blob by its digest. Here the name is a lie."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    shutil.copytree(tiny_vit, snapshot)
    blobs.mkdir()
    blob = blobs / ("0" * 64)
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    true = hashlib.sha256(blob.read_bytes()).hexdigest()
    assert find_checkpoint(str(snapshot)).weights_sha256 == true != blob.name


def test_the_digest_of_a_file_is_kept(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process does not read the file again. After any change, the file is read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = vit / "model.safetensors"
    reads = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: reads.append(1) or digest(*args))

    def digest_in_new_process() -> str:
        weights._content_digest.cache_clear()
        return weights.digest_of([file])

    # The file was just written. Another change at once might leave its times as they are, so nothing is kept.
    monkeypatch.setattr(checked_files, "_SAME_TICK_NS", 10**18)
    first = digest_in_new_process()
    assert digest_in_new_process() == first == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(reads) == 2
    monkeypatch.setattr(checked_files, "_SAME_TICK_NS", 0)
    assert [digest_in_new_process() for _ in range(3)] == [first] * 3
    assert len(reads) == 3

    # Somebody changes a byte and sets the time of modification back.
    state = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_mtime_ns == state.st_mtime_ns
    assert digest_in_new_process() == hashlib.sha256(data).hexdigest() != first
    assert len(reads) == 4

    # What is kept may be damaged, and the cache may not be writable.
    (kept,) = (tmp_path / "cache" / "rasterembed" / "checked").glob("*/*")
    for damaged in ("damaged", "[]", '{"sha256": 5}', json.dumps({"sha256": "0" * 64})):
        kept.write_text(damaged)
        assert digest_in_new_process() == hashlib.sha256(data).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert digest_in_new_process() == hashlib.sha256(data).hexdigest()


def test_other_weights_under_the_planned_name_are_not_loaded(vit: Path) -> None:
    planned = resolve_model(Dinov3(model=str(vit), device="cpu"), 64)
    tensors = load_file(vit / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, vit / "other", {"format": "pt"})
    blobs = vit.parent / "blobs"
    blobs.mkdir()
    (vit / "other").rename(blobs / planned.weights_sha256)
    (vit / "model.safetensors").unlink()
    (vit / "model.safetensors").symlink_to(blobs / planned.weights_sha256)
    with pytest.raises(DataError, match="has other weights here"):
        Embedder(planned, "cpu")
