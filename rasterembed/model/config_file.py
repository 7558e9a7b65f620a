"""Read a checkpoint's JSON files, and check each field that is used. A checkpoint may come from an untrusted person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.errors import DataError, validation_reason
from rasterembed.escape import cut

_LARGEST_FILE = 16 * 2**20
"""Largest allowed size of a JSON file, in bytes. The index of a checkpoint with 7,000 million weights has 60 kB."""

_SHOWN = 60
"""Largest number of characters that an error shows of a wrong value."""

Width = Annotated[int, Field(ge=1, le=16384)]
"""Length of a token's vector. The largest DINOv3 has 4096."""

Depth = Annotated[int, Field(ge=1, le=512)]
"""Number of layers. The largest DINOv3 has 40."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Architecture(BaseModel):
    """Fields of config.json that decide how transformers builds the network. All other fields are ignored.

    Some ignored fields matter only in training. With others, transformers would fetch a kernel, convert weights, or
    read more files. Names and defaults are those of transformers' configuration classes.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    num_channels: Literal[3] = 3
    hidden_act: str = Field(default="gelu", pattern=r"^[A-Za-z0-9_]{1,32}$")
    layer_norm_eps: Positive = 1e-5

    def smallest_number_of_weights(self) -> int:
        """Return the number of weights in the large matrices. The network has a few more weights."""
        raise NotImplementedError

    def multiplications(self, side: int) -> float:
        """Return the approximate number of multiplications for one image of `side` x `side` px."""
        raise NotImplementedError

    def problem(self, weights: int) -> str | None:
        """Return the reason why the network cannot be built, or None.

        Without this check, config.json could ask for a network of any size, far larger than the weights files.
        transformers would allocate the memory, and fill the missing weights with random numbers.

        Args:
            weights: number of weights in the checkpoint's files.
        """
        needed = self.smallest_number_of_weights()
        # If only a few tensors are missing, the network is accepted here. Loading fails later, and names a tensor.
        if needed <= 2 * weights:
            return None
        return f"it describes a network of {needed:,} weights or more, but the weights files hold {weights:,}"


class VitArchitecture(_Architecture):
    """Fields of a DINOv3 ViT."""

    patch_size: int = Field(ge=1, le=256)
    hidden_size: Width
    intermediate_size: int = Field(default=1536, ge=1, le=131_072)
    num_hidden_layers: Depth = 12
    num_attention_heads: int = Field(default=6, ge=1, le=1024)
    num_register_tokens: int = Field(default=0, ge=0, le=1024)
    rope_theta: Positive = 100.0
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_gated_mlp: bool = False

    @property
    def token_side(self) -> int:
        """Side in px of the square that one patch token represents."""
        return self.patch_size

    @property
    def token_size(self) -> int:
        """Length of a token's vector."""
        return self.hidden_size

    @property
    def prefix_tokens(self) -> int:
        """Number of CLS and register tokens before the first patch token."""
        return 1 + self.num_register_tokens

    def smallest_number_of_weights(self) -> int:
        """Return the number of weights in the large matrices. The network has a few more weights."""
        width, mlp = self.hidden_size, 3 if self.use_gated_mlp else 2
        layer = 4 * width**2 + mlp * width * self.intermediate_size
        return self.num_hidden_layers * layer + self.num_channels * self.patch_size**2 * width

    def multiplications(self, side: int) -> float:
        """Return the approximate number of multiplications for one image of `side` x `side` px.

        In each layer, every token is multiplied with the matrices of the layer, and is compared with every other token.
        """
        tokens, width = (side / self.patch_size) ** 2 + self.prefix_tokens, self.hidden_size
        matrices = 4 * width**2 + (3 if self.use_gated_mlp else 2) * width * self.intermediate_size
        return self.num_hidden_layers * (tokens * matrices + 2 * tokens**2 * width)

    def problem(self, weights: int) -> str | None:
        """Return the reason why the network cannot be built, or None. See the base class."""
        # The rotary position embedding splits the vector of each head into four equal parts.
        if self.hidden_size % (4 * self.num_attention_heads):
            return (
                f"hidden_size {self.hidden_size} is not a multiple of 4 times num_attention_heads "
                f"{self.num_attention_heads}"
            )
        return super().problem(weights)


class ConvNextArchitecture(_Architecture):
    """Fields of a DINOv3 ConvNeXt."""

    layer_norm_eps: Positive = 1e-6
    hidden_sizes: list[Width] = Field(min_length=4, max_length=4)
    depths: list[Depth] = Field(default=[3, 3, 9, 3], min_length=4, max_length=4)

    @property
    def token_side(self) -> int:
        """Side in px of the square that one patch token represents: 4 px, doubled by each of the three later stages."""
        return 32

    @property
    def token_size(self) -> int:
        """Length of a token's vector."""
        return self.hidden_sizes[-1]

    @property
    def prefix_tokens(self) -> int:
        """Number of CLS tokens before the first patch token."""
        return 1

    def smallest_number_of_weights(self) -> int:
        """Return the number of weights in the large matrices. The network has a few more weights."""
        layers = sum(depth * 8 * width**2 for depth, width in zip(self.depths, self.hidden_sizes, strict=True))
        steps = sum(4 * one * other for one, other in zip(self.hidden_sizes, self.hidden_sizes[1:], strict=False))
        return layers + steps

    def multiplications(self, side: int) -> float:
        """Return the approximate number of multiplications for one image of `side` x `side` px.

        The first stage has a vector for each square of 4 px. Each later stage has a quarter of the vectors.
        """
        stages = zip(self.depths, self.hidden_sizes, strict=True)
        return float(sum(depth * 8 * width**2 * (side / 4) ** 2 / 4**n for n, (depth, width) in enumerate(stages)))


Architecture = VitArchitecture | ConvNextArchitecture

Family = Literal["dinov3_vit", "dinov3_convnext"]
"""Model type that can be loaded."""

_ARCHITECTURES: dict[Family, type[Architecture]] = {
    "dinov3_vit": VitArchitecture,
    "dinov3_convnext": ConvNextArchitecture,
}


def read_architecture(model: str, folder: Path) -> tuple[Family, Architecture]:
    """Read a checkpoint's config.json.

    Args:
        model: name of the model in errors.
        folder: folder of the checkpoint.

    Raises:
        DataError: if the file cannot be read, if the model has an unsupported type, or if a field has a wrong value.
    """
    path = folder / "config.json"
    content = read_json(model, path)
    model_type = content.get("model_type")
    family = next((family for family in _ARCHITECTURES if family == model_type), None)
    if family is None:
        raise DataError(
            f"model {model!r} is of type {shown(model_type)}: DINOv3 ViT and ConvNeXt checkpoints are supported "
            f"(model_type in {path})"
        )
    try:
        return family, _ARCHITECTURES[family].model_validate(content)
    except ValidationError as error:
        raise DataError(f"model {model!r}: {path}: {_wrong_field(error)}") from error


def _wrong_field(error: ValidationError) -> str:
    """Return the name of the first wrong field, the reason, and the value."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{field} is missing"
    reason = validation_reason(error)
    return f"{field}: {reason}, not {shown(first['input'])}" if field else reason


def read_json(model: str, path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model.

    Args:
        model: name of the model in errors.
        path: the file.

    Raises:
        DataError: if the file is missing or too large, or if it does not hold a JSON object.
    """
    try:
        if path.exists() and not path.is_file():  # Opening a named pipe would wait for ever.
            raise DataError(f"model {model!r}: {path} is not a file")
        if path.stat().st_size > _LARGEST_FILE:
            raise DataError(f"model {model!r}: {path} has more than {_LARGEST_FILE} bytes: download it again")
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"model {model!r}: {path} is missing: give the folder of a checkpoint, with config.json, "
            "preprocessor_config.json and *.safetensors"
        ) from error
    except OSError as error:
        raise DataError(f"model {model!r}: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # Deeply nested lists exceed the limit of recursion.
        raise DataError(f"model {model!r}: {path} is not JSON") from error
    if not isinstance(content, dict):
        raise DataError(f"model {model!r}: {path} is not a JSON object")
    return content


def shown(value: object) -> str:
    """Return a value from a file as JSON, as the file has it, for an error."""
    return cut(json.dumps(value), _SHOWN)
