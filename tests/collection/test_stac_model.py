"""The card of a collection's model is a valid Item of STAC's extension MLM, for every kind of model."""

from __future__ import annotations

import pystac
import pytest
from pystac.extensions.mlm import MLMExtension

from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.stac_model import stac_model
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import ResolvedModel
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.validity import Validity
from rasterembed.store.layout import CollectionLayout
from tests.support.stac_schemas import check

HUB = "facebook/dinov3-vits16-pretrain-lvd1689m"
COMMIT = "114c1379950215c8b35dfcd4e90a5c251dde0d32"


def configuration(model_id: str, name: str, revision: str | None, input_size: int = 224) -> CollectionConfiguration:
    model = ResolvedModel(
        id=model_id,
        name=name,
        revision=revision,
        weights_sha256="ab" * 32,
        pooling="cls",
        dtype="bfloat16",
        input_size=input_size,
        dimensions=384,
        mean=(0.43, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
    )
    return CollectionConfiguration(
        grid=Grid(size=224), radiometry=Radiometry(), validity=Validity(), model=model, selection=Selection()
    )


@pytest.mark.parametrize(
    ("model_id", "name", "revision", "plain", "href"),
    [
        (HUB, HUB, COMMIT, "facebook-dinov3-vits16-pretrain-lvd1689m", f"https://huggingface.co/{HUB}/tree/{COMMIT}"),
        ("/models/my own #1", "/models/my own #1", None, "models-my-own-1", "/models/my%20own%20%231"),
        ("/m/7", "/7", None, "model-7", "/m/7"),
        ("demo", "demo (untrained)", None, "demo-untrained", f"urn:sha256:{'ab' * 32}"),
    ],
)
def test_the_card_of_a_model_is_valid(model_id: str, name: str, revision: str | None, plain: str, href: str) -> None:
    card = check(stac_model(CollectionLayout("survey"), configuration(model_id, name, revision)))
    assert (card["properties"]["mlm:name"], card["properties"]["title"]) == (plain, name)
    assert card["assets"]["model"]["href"] == href
    (tile,), (embedding,) = card["properties"]["mlm:input"], card["properties"]["mlm:output"]
    assert tile["value_scaling"][2] == {"type": "z-score", "mean": 0.296, "stddev": 0.143}
    assert (tile["input"]["shape"], tile["resize_type"]) == ([-1, 3, 224, 224], None)
    assert embedding["result"]["shape"] == [-1, 384]
    read = MLMExtension.ext(pystac.Item.from_dict(card))
    assert (read.mlm_name, read.architecture, read.input[0].bands) == (plain, "DINOv3", ["red", "green", "blue"])


def test_a_tile_that_is_resized_says_so() -> None:
    card = check(stac_model(CollectionLayout("survey"), configuration(HUB, HUB, COMMIT, input_size=448)))
    (tile,) = card["properties"]["mlm:input"]
    assert (tile["input"]["shape"], tile["resize_type"]) == ([-1, 3, 448, 448], "interpolation-linear")
