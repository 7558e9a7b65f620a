"""The remembered vectors of transformers' network: who uses them, and that they never change a vector."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rasterembed.model import expected_vectors
from rasterembed.model.checkpoints import Checkpoint
from rasterembed.model.choice import ComputeDtype, Dinov3, Pooling, resolve_model
from rasterembed.model.embedder import Embedder
from rasterembed.model.folded_vit import FoldedViT
from rasterembed.raster.radiometry import ResolvedRadiometry

SIDE = 32

AS_IT_IS = ResolvedRadiometry(bands=(1, 2, 3), low=(0.0,) * 3, high=(255.0,) * 3, method="uint8")

PIXELS = np.random.default_rng(5).integers(0, 256, (11, 3, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the notes, in an empty cache folder that only this test uses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rasterembed" / "expected"


@pytest.fixture
def by_transformers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the folder of each checkpoint that transformers loads."""
    # Transformers take long to import, and not every test process needs them.
    from rasterembed.model import transformers_loading

    loaded: list[str] = []
    load = transformers_loading.load_with_transformers

    def counted(checkpoint: Checkpoint) -> Any:
        loaded.append(checkpoint.folder.name)
        return load(checkpoint)

    monkeypatch.setattr(transformers_loading, "load_with_transformers", counted)
    return loaded


def vectors(
    folder: Path, *, pooling: Pooling = "cls", dtype: ComputeDtype = "float32", side: int = SIDE
) -> NDArray[np.float32]:
    """Load a checkpoint, and return its vectors of the same tiles."""
    choice = Dinov3(model=str(folder), pooling=pooling, dtype=dtype, device="cpu", input_size=side)
    valid = np.ones((len(PIXELS), SIDE, SIDE), dtype=bool)
    return Embedder(resolve_model(choice, SIDE), "cpu").embed(PIXELS, valid, AS_IT_IS)


def copy_of(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.vectors
@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_second_load_needs_no_transformers_and_gives_the_same_bits(
    dtype: ComputeDtype, pooling: Pooling, tiny_vit: Path, notes: Path, by_transformers: list[str]
) -> None:
    first = vectors(tiny_vit, pooling=pooling, dtype=dtype)
    assert len(by_transformers) == 1
    assert len(list(notes.iterdir())) == 1
    again = vectors(tiny_vit, pooling=pooling, dtype=dtype)
    assert len(by_transformers) == 1
    np.testing.assert_array_equal(first, again)


def gated(architecture: dict[str, Any]) -> None:
    architecture |= {"use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False}


def all_biases(architecture: dict[str, Any]) -> None:
    architecture |= {"key_bias": True, "num_register_tokens": 0, "rope_theta": 50.0}


@pytest.mark.parametrize("shape", [gated, all_biases])
def test_other_shapes_of_a_vit_are_remembered_too(
    shape: Callable[[dict[str, Any]], None], tmp_path: Path, notes: Path, by_transformers: list[str]
) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    from rasterembed.model.checkpoints import write_preprocessor

    fields: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    shape(fields)
    torch.manual_seed(2)
    network = DINOv3ViTModel(DINOv3ViTConfig(**fields))
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape) / max(weight.shape[-1], 1) ** 0.5)
    network.save_pretrained(tmp_path / "model")
    write_preprocessor(tmp_path / "model", mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
    first, again = vectors(tmp_path / "model"), vectors(tmp_path / "model")
    assert len(by_transformers) == 1
    np.testing.assert_array_equal(first, again)


def test_weights_in_bfloat16_are_remembered_too(
    tiny_vit: Path, tmp_path: Path, notes: Path, by_transformers: list[str]
) -> None:
    folder = copy_of(tiny_vit, tmp_path / "narrow")
    change_weights(folder, lambda tensors: tensors.update({n: t.bfloat16() for n, t in tensors.items()}))
    first, again = vectors(folder), vectors(folder)
    assert len(by_transformers) == 1
    np.testing.assert_array_equal(first, again)


def _other_weights(folder: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    change_weights(folder, lambda tensors: tensors["norm.bias"].add_(0.25))
    return {}


def _other_configuration(folder: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    change_config(folder, rope_theta=50.0)
    return {}


def _other_versions(_: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(expected_vectors, "version", lambda name: f"{name} of tomorrow")
    return {}


def _other_processor(_: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(expected_vectors, "processor_name", lambda: "another")
    return {}


@pytest.mark.parametrize(
    "change",
    [
        _other_weights,
        _other_configuration,
        _other_versions,
        _other_processor,
        lambda *_: {"side": 48},
        lambda *_: {"pooling": "mean"},
    ],
    ids=["weights", "configuration", "versions", "processor", "side", "pooling"],
)
def test_another_model_or_machine_is_checked_again(
    change: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]],
    tiny_vit: Path,
    tmp_path: Path,
    notes: Path,
    by_transformers: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copy_of(tiny_vit, tmp_path / "model")
    vectors(folder)
    options = change(folder, monkeypatch)
    vectors(folder, **options)
    assert len(by_transformers) == 2
    assert len(list(notes.iterdir())) == 2


def _other_vectors(note: Path) -> None:
    content = json.loads(note.read_text())
    content["vectors"] = (np.array(content["vectors"]) * 1.01).tolist()
    note.write_text(json.dumps(content))


def _other_key(note: Path) -> None:
    content = json.loads(note.read_text())
    content["key"]["weights"] = "0" * 64
    note.write_text(json.dumps(content))


def _writable_by_others(note: Path) -> None:
    note.parent.chmod(0o777)


def _endless(note: Path) -> None:
    with note.open("r+b") as file:
        file.truncate(2**34)


def _a_link(note: Path) -> None:
    note.unlink()
    note.symlink_to("/dev/zero")  # Its size is 0, but it has no end.


def _a_pipe(note: Path) -> None:
    note.unlink()
    os.mkfifo(note)


WRONG: dict[str, Callable[[Path], object]] = {
    "other vectors": _other_vectors,
    "other key": _other_key,
    "writable by others": _writable_by_others,
    "endless": _endless,
    "a link": _a_link,
    "a pipe": _a_pipe,
    "not JSON": lambda note: note.write_text("{"),
    "deep": lambda note: note.write_text("[" * 100_000),
    "a list": lambda note: note.write_text("[]"),
    "empty": lambda note: note.write_text(""),
    "other shape": lambda note: note.write_text(json.dumps(json.loads(note.read_text()) | {"vectors": [[1.0]]})),
    "uneven": lambda note: note.write_text(json.dumps(json.loads(note.read_text()) | {"vectors": [[1.0], [1.0, 2.0]]})),
    "texts": lambda note: note.write_text(json.dumps(json.loads(note.read_text()) | {"vectors": "x"})),
    "not a number": lambda note: note.write_text(note.read_text().replace('"vectors": [[[', '"vectors": [[[NaN, ')),
}
"""Changes of a note after which it must not be used."""


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_note_changes_nothing(wrong: str, tiny_vit: Path, notes: Path, by_transformers: list[str]) -> None:
    first = vectors(tiny_vit)
    (note,) = notes.iterdir()
    WRONG[wrong](note)
    np.testing.assert_array_equal(first, vectors(tiny_vit))
    assert len(by_transformers) == 2
    notes.chmod(0o700)
    vectors(tiny_vit)  # The second load has written the note again.
    assert len(by_transformers) == 2


def test_a_cache_folder_that_cannot_be_written_changes_nothing(
    tiny_vit: Path, notes: Path, by_transformers: list[str]
) -> None:
    first = vectors(tiny_vit)
    shutil.rmtree(notes)
    notes.write_text("a file is in the way")
    np.testing.assert_array_equal(first, vectors(tiny_vit))
    np.testing.assert_array_equal(first, vectors(tiny_vit))
    assert len(by_transformers) == 3


def test_tensors_that_do_not_fill_the_network_are_loaded_by_transformers(
    tiny_vit: Path, tmp_path: Path, notes: Path, by_transformers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is the one of the note, but the tensors are others."""
    folder = copy_of(tiny_vit, tmp_path / "model")
    vectors(folder)
    monkeypatch.setattr("rasterembed.model.engines.load_weights", lambda *_: {})
    vectors(folder)
    assert len(by_transformers) == 2


def test_only_a_network_with_the_same_bits_is_remembered(
    tiny_vit: Path, tmp_path: Path, notes: Path, by_transformers: list[str]
) -> None:
    """transformers ignores a bias that config.json does not ask for, and knows more activations than this library."""
    odd = copy_of(tiny_vit, tmp_path / "bias")
    change_weights(odd, lambda tensors: tensors.update({"layer.0.attention.k_proj.bias": torch.ones(64)}))
    other = copy_of(tiny_vit, tmp_path / "activation")
    change_config(other, hidden_act="gelu_pytorch_tanh")
    for folder in (odd, odd, other, other):
        vectors(folder)
    assert by_transformers == ["bias", "bias", "activation", "activation"]
    assert not notes.exists()


def test_the_folded_network_is_compared_at_every_load(
    tiny_vit: Path,
    notes: Path,
    by_transformers: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of the folded network that comes after the note, such as one of a new kernel, is found."""
    first = vectors(tiny_vit)
    monkeypatch.setattr(FoldedViT, "forward", lambda self, images: torch.ones(len(images), 1, 64))
    found = vectors(tiny_vit)
    assert len(by_transformers) == 2
    assert "its vectors differ by" in caplog.text
    np.testing.assert_allclose(found, first, atol=1e-4 * float(np.linalg.norm(first[0])))


def test_a_convnext_is_always_loaded_by_transformers(
    tiny_convnext: Path, notes: Path, by_transformers: list[str]
) -> None:
    np.testing.assert_array_equal(vectors(tiny_convnext), vectors(tiny_convnext))
    assert len(by_transformers) == 2
    assert not notes.exists()
