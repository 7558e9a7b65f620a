"""Mean and deviation: those of the checkpoint, those that a user gives, and a warning if they look wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import transformers
from cyclopts import App
from PIL import Image
from pydantic import ValidationError
from transformers.image_transforms import normalize, rescale

from rasterembed.commands.embed import app
from rasterembed.errors import DataError
from rasterembed.model.checkpoints import write_preprocessor
from rasterembed.model.choice import Dinov3, resolve_model
from rasterembed.model.normalisation import doubtful_normalisation
from rasterembed.pipeline import Steps
from rasterembed.raster.grid import Grid
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed_ready
from tests.support.vectors import blank_raster, write_dataset

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))


def copy(tiny_vit: Path, folder: Path, numbers: tuple[tuple[float, float, float], tuple[float, float, float]]) -> Path:
    shutil.copytree(tiny_vit, folder)
    write_preprocessor(folder, mean=numbers[0], std=numbers[1])
    return folder


@pytest.fixture
def wrong(tiny_vit: Path, tmp_path: Path) -> Path:
    """A checkpoint for satellite images with the numbers of the other checkpoints, as it is seen on the hub."""
    return copy(tiny_vit, tmp_path / "dinov3-vitl16-pretrain-sat493m", IMAGENET)


def doubt(choice: Dinov3) -> str | None:
    return doubtful_normalisation(choice, resolve_model(choice, 64))


def test_wrong_numbers_are_named(wrong: Path) -> None:
    assert doubt(Dinov3(model=str(wrong), device="cpu")) == (
        f"model '{wrong}' was trained on the images sat493m, with --mean 0.43,0.411,0.296 --std 0.213,0.156,0.143. Its "
        "preprocessor_config.json says --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, which gives other vectors: "
        "add --mean 0.43,0.411,0.296 --std 0.213,0.156,0.143. To keep the file's numbers without this warning, give "
        "them"
    )


def test_numbers_that_raise_no_doubt(wrong: Path, tiny_vit: Path, tmp_path: Path) -> None:
    right = copy(tiny_vit, tmp_path / "copy-of-SAT493M", SATELLITE)
    rounded = copy(tiny_vit, tmp_path / "dinov3-vits16-lvd1689m", ((0.485, 0.456, 0.406), (0.23, 0.225, 0.224)))
    unknown = copy(tiny_vit, tmp_path / "my-dino", ((0.5,) * 3, (0.5,) * 3))
    for folder in (right, rounded, unknown):
        assert doubt(Dinov3(model=str(folder), device="cpu")) is None
    given = Dinov3(model=str(wrong), device="cpu", mean=SATELLITE[0], std=SATELLITE[1])
    assert doubt(given) is None
    assert (resolve_model(given, 64).mean, resolve_model(given, 64).std) == SATELLITE
    assert doubt(Dinov3(model=str(wrong), device="cpu", mean=IMAGENET[0], std=IMAGENET[1])) is None
    other = copy(tiny_vit, tmp_path / "dinov3-vits16-pretrain-lvd1689m", SATELLITE)
    assert "with --mean 0.485,0.456,0.406" in str(doubt(Dinov3(model=str(other), device="cpu")))


def test_numbers_on_the_command_line(wrong: Path) -> None:
    arguments = ["scene.tif", "--model", str(wrong), "--mean", "0.43,0.411,0.296", "--std", "0.213,0.156,0.143"]
    _, bound, _ = App.parse_args(app, arguments, exit_on_error=False, print_error=False)
    assert (bound.arguments["dinov3"].mean, bound.arguments["dinov3"].std) == SATELLITE
    for numbers in ("1,2", "123,116,103", "a,b,c", "0,0,0"):
        with pytest.raises(ValidationError):
            Dinov3.model_validate({"std": numbers})


def test_the_plans_numbers_are_used_for_tiles_and_for_images(wrong: Path, tmp_path: Path) -> None:
    """The vectors are compared with those of transformers, normalised with NumPy."""

    said: list[str] = []

    class Said(Steps):
        def on_warning(self, message: str) -> None:
            said.append(message)

    raster = blank_raster(tmp_path / "r.tif", 2, 2)
    pixels = np.random.default_rng(3).integers(0, 255, (3, 32, 32), np.uint8)
    with rasterio.open(raster, "r+") as file:
        file.write(pixels)
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(wrong), device="cpu")
    given = model.model_copy(update={"mean": SATELLITE[0], "std": SATELLITE[1]})
    for name, choice in (("file", model), ("given", given)):
        embed_ready(store, str(raster), steps=Said(), dataset_id=name, grid=Grid(size=16), model=choice)
    assert len(said) == 1

    network = transformers.AutoModel.from_pretrained(wrong).eval()
    tile = pixels[:, :16, :16]
    chip = tmp_path / "chip.png"
    Image.fromarray(tile.transpose(1, 2, 0)).save(chip)
    for name, (mean, std) in (("file", IMAGENET), ("given", SATELLITE)):
        image = (tile / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        with torch.inference_mode():
            expected = network(torch.from_numpy(image[None]).float()).pooler_output[0].numpy()
        with Searcher(store, [name], device="cpu") as searcher:
            stored = searcher.datasets[0].vectors()[0]
            answer = searcher.ask(Query(image=str(chip)), k=1)
        np.testing.assert_allclose(stored, expected, atol=1e-4)
        assert answer.hits[0].tile_id == "r000000_c000000"
        assert answer.hits[0].distance < 1e-6


def test_datasets_with_other_numbers_cannot_be_searched_together(wrong: Path, tmp_path: Path) -> None:
    raster = blank_raster(tmp_path / "r.tif", 1, 2)
    store = ObjectStore(root=str(tmp_path / "store"))
    for name, mean in (("one", IMAGENET[0]), ("other", SATELLITE[0])):
        model = Dinov3(model=str(wrong), device="cpu", mean=mean, std=IMAGENET[1])
        write_dataset(store, name, raster, model, np.ones((2, 64), np.float32))
    with pytest.raises(
        DataError, match=r"cannot be compared: mean of the normalisation: \[0\.485, 0\.456, 0\.406\] and"
    ):
        Searcher(store, ["one", "other"])


@pytest.mark.parametrize(
    "fields",
    [
        {"do_normalize": False},
        {"do_normalize": False, "image_mean": None, "image_std": None},
        {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
        {"do_rescale": False, "rescale_factor": 7},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
        {"rescale_factor": 0.00392157},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_the_processors_other_fields_are_obeyed(fields: dict[str, Any], tiny_vit: Path, tmp_path: Path) -> None:
    """The normalised pixels are compared with those of transformers' own functions for images."""
    folder = copy(tiny_vit, tmp_path / "model", IMAGENET)
    path = folder / "preprocessor_config.json"
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(content))
    pixels = np.random.default_rng(5).integers(0, 256, (3, 8, 8), np.uint8)
    expected = pixels.astype(np.float64)
    if content["do_rescale"]:
        expected = rescale(expected, content["rescale_factor"], dtype=np.float64)
    if content["do_normalize"]:
        mean, std = content["image_mean"], content["image_std"]
        expected = normalize(expected, mean, std, input_data_format="channels_first")
    model = resolve_model(Dinov3(model=str(folder), device="cpu"), 64)
    found = (pixels / 255 - np.reshape(model.mean, (3, 1, 1))) / np.reshape(model.std, (3, 1, 1))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"do_normalize": "no"}, r'do_normalize is "no": it must be true or false$'),
        ({"do_rescale": None}, r"do_rescale is null: it must be true or false$"),
        ({"rescale_factor": 0}, r"rescale_factor is 0: it must be a number above 0$"),
        ({"rescale_factor": float("inf")}, r"rescale_factor is Infinity: it must be a number above 0$"),
        ({"rescale_factor": True}, r"rescale_factor is true: it must be a number above 0$"),
        (
            {"rescale_factor": 1e-300},
            r"needs image_mean and image_std, .* from 0 to 1, after the division by 2\.55e-298",
        ),
        ({"do_rescale": False, "image_mean": [300, 1, 1]}, r"from 0 to 1, after the division by 255 that do_rescale"),
        ({"image_std": [1e-9, 0.2, 0.2]}, r"needs image_mean and image_std, three numbers each, from 0 to 1$"),
    ],
)
def test_impossible_fields_of_the_processor_are_named(
    fields: dict[str, Any], text: str, tiny_vit: Path, tmp_path: Path
) -> None:
    folder = copy(tiny_vit, tmp_path / "model", IMAGENET)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(DataError, match=text):
        resolve_model(Dinov3(model=str(folder), device="cpu"), 64)
