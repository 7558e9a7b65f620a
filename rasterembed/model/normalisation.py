"""Mean and standard deviation for normalising images. They come from the checkpoint or from the user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rasterembed.errors import DataError
from rasterembed.model.config_file import read_json, shown

if TYPE_CHECKING:
    from rasterembed.model.choice import Dinov3, ResolvedModel


def _split(values: object) -> object:
    """Split numbers that a person typed as `0.43,0.411,0.296`."""
    # A command gives a list with the typed text as its only item.
    if isinstance(values, list | tuple) and len(values) == 1:
        values = values[0]
    return tuple(values.split(",")) if isinstance(values, str) else values


SMALLEST_DEVIATION = 1e-6
"""Smallest standard deviation. A colour divided by a much smaller number has no finite vector."""

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
PositiveShare = Annotated[float, Field(ge=SMALLEST_DEVIATION, le=1.0, allow_inf_nan=False)]
# With `tuple[Share, Share, Share]`, a command would expect three numbers with spaces between them.
Mean = Annotated[tuple[Share, ...], Field(min_length=3, max_length=3), BeforeValidator(_split)]
Deviation = Annotated[tuple[PositiveShare, ...], Field(min_length=3, max_length=3), BeforeValidator(_split)]

# Version 0.1 accepted numbers above 1, so that a stored plan or manifest may hold them.
StoredMean = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
StoredDeviation = Annotated[float, Field(ge=SMALLEST_DEVIATION, le=1e6, allow_inf_nan=False)]


class Normalisation(BaseModel):
    """Numbers that images are normalised with: (colour - mean) / std, for colours from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    mean: tuple[float, float, float]
    """Mean of red, green and blue."""
    std: tuple[float, float, float]
    """Standard deviation of red, green and blue."""

    def replaced(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalisation:
        """Return a normalisation with the user's numbers. If `mean` or `std` is None, its present numbers are kept."""
        return Normalisation.model_validate({"mean": mean or self.mean, "std": std or self.std})

    def __str__(self) -> str:
        """Return these numbers as the two options of a command, `--mean` and `--std`."""
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"--mean {mean} --std {std}"


_TRAINED_WITH = {
    "sat493m": Normalisation(mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143)),
    "lvd1689m": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
"""Normalisation that DINOv3 was trained with, by the name of the training images. An official checkpoint has this name
at the end of its own name. The source is the README of https://github.com/facebookresearch/dinov3."""

_SAME = 0.005
"""Two numbers that differ by less than this value count as equal. Some checkpoints round them to two digits."""


def read_normalisation(model: str, folder: Path) -> Normalisation:
    """Read a checkpoint's preprocessor_config.json.

    transformers multiplies pixel values from 0 to 255 by `rescale_factor` if `do_rescale` is true. It then subtracts
    `image_mean` and divides by `image_std` if `do_normalize` is true (`BaseImageProcessorFast`). The numbers that are
    returned do the same with colours from 0 to 1.

    Args:
        model: name of the model in errors.
        folder: folder of the checkpoint.

    Raises:
        DataError: if the file cannot be read, or if one of these fields is missing or wrong.
    """
    path = folder / "preprocessor_config.json"
    content = read_json(model, path)
    white = _white(model, path, content)
    numbers = content if _switch(model, path, content, "do_normalize") else _NOT_NORMALISED
    mean, std = _three(numbers.get("image_mean"), white), _three(numbers.get("image_std"), white)
    if mean is None or std is None or min(std) < SMALLEST_DEVIATION:
        scale = "" if white == 1 else f", after the division by {white:g} that do_rescale and rescale_factor ask for"
        raise DataError(
            f"model {model!r}: {path} needs image_mean and image_std, three numbers each, from 0 to 1{scale}"
        )
    return Normalisation(mean=mean, std=std)


_NOT_NORMALISED: dict[str, Any] = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
"""Mean and deviation that change nothing. They are those of a file with `do_normalize: false`."""


def _white(model: str, path: Path, content: dict[str, Any]) -> float:
    """Return the number that the processor makes of white, the pixel value 255, before it normalises the image."""
    factor = content.get("rescale_factor", 1 / 255)
    if not _switch(model, path, content, "do_rescale"):
        factor = 1.0
    if type(factor) not in (int, float) or not 0 < factor < math.inf:
        raise DataError(f"model {model!r}: {path}: rescale_factor is {shown(factor)}: it must be a number above 0")
    white = 255.0 * float(factor)
    return 1.0 if abs(white - 1) < 1e-6 else white  # Some files round 1/255.


def _switch(model: str, path: Path, content: dict[str, Any], name: str) -> bool:
    """Return a field that is true or false. It is true if it is missing, as in DINOv3's image processor."""
    value = content.get(name, True)
    if not isinstance(value, bool):
        raise DataError(f"model {model!r}: {path}: {name} is {shown(value)}: it must be true or false")
    return value


def _three(values: object, white: float) -> tuple[float, float, float] | None:
    """Return three numbers divided by `white`, or None if `values` is no list of three such numbers from 0 to 1."""
    if not isinstance(values, list) or len(values) != 3:
        return None
    if not all(type(v) in (int, float) and 0 <= v / white <= 1 for v in values):
        return None
    red, green, blue = (float(v) / white for v in values)
    return red, green, blue


def doubtful_normalisation(choice: Dinov3, model: ResolvedModel) -> str | None:
    """Return a warning if a model is normalised with other numbers than it was trained with, else None.

    For example, some copies of the sat493m checkpoints have the mean and deviation of the lvd1689m checkpoints. The
    name of the model shows which images it was trained with. If the user gives both mean and deviation, there is no
    warning.
    """
    if choice.mean is not None and choice.std is not None:
        return None
    images = next((images for images in _TRAINED_WITH if images in model.id.lower()), None)
    if images is None:
        return None
    used, right = Normalisation(mean=model.mean, std=model.std), _TRAINED_WITH[images]
    pairs = zip((*used.mean, *used.std), (*right.mean, *right.std), strict=True)
    if all(abs(one - other) < _SAME for one, other in pairs):
        return None
    return (
        f"model {model.name!r} was trained on the images {images}, with {right}. Its preprocessor_config.json says "
        f"{used}, which gives other vectors: add {right}. To keep the file's numbers without this warning, give them"
    )
