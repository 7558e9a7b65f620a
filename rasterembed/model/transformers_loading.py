"""Load a checkpoint with transformers. This module imports transformers, which takes more than a second."""

from __future__ import annotations

from typing import Any, Literal

import torch
import transformers
from transformers.activations import ACT2FN

from rasterembed.errors import DataError, one_line
from rasterembed.model.checkpoints import Checkpoint
from rasterembed.model.config_file import Family
from rasterembed.model.weights import load_weights

_NETWORKS: dict[Family, tuple[str, Literal["sdpa", "eager"]]] = {
    "dinov3_vit": ("DINOv3ViTModel", "sdpa"),
    "dinov3_convnext": ("DINOv3ConvNextModel", "eager"),
}
"""Name of the network's class in transformers, and the implementation of its attention. A ConvNeXt has no attention."""


def load_with_transformers(checkpoint: Checkpoint) -> Any:
    """Load a checkpoint with transformers, in float32.

    transformers gets only the checked configuration and the tensors. It does not read the checkpoint's folder. Other
    files and fields of a checkpoint could make transformers fetch a kernel, or load weights that are not part of the
    digest.

    Raises:
        DataError: If a file is damaged, or if the weights are not those of the network that config.json describes.
    """
    # Turn off transformers' progress bar, because it would break the run's own output. Also turn off its table of
    # wrong tensors.
    transformers.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    class_name, attention = _NETWORKS[checkpoint.family]
    network_class = getattr(transformers, class_name)
    try:
        tensors = load_weights(checkpoint.name, checkpoint.folder)
        _check_buildable(checkpoint, sum(tensor.numel() for tensor in tensors.values()))
        network, report = network_class.from_pretrained(
            None,
            config=network_class.config_class(**checkpoint.architecture.model_dump()),
            state_dict=tensors,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,  # The report lists these tensors, and `_check_complete` refuses them.
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except DataError:
        raise
    except Exception as error:  # A damaged file can raise many classes of exceptions.
        raise DataError(
            f"model {checkpoint.name!r} does not load from {checkpoint.folder}: {one_line(error)}"
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    _check_complete(checkpoint, report)
    return network.eval()  # In training mode, the network would vary the rotary positions at random.


def _check_buildable(checkpoint: Checkpoint, weights: int) -> None:
    """Refuse a network that is larger than its weights, before memory is allocated for the network.

    Args:
        checkpoint: The checkpoint.
        weights: Number of weights in the files.
    """
    architecture = checkpoint.architecture
    problem = architecture.problem(weights)
    if problem is None and architecture.hidden_act not in ACT2FN:
        problem = f"hidden_act {architecture.hidden_act!r} is not known to transformers {transformers.__version__}"
    if problem is not None:
        raise DataError(f"model {checkpoint.name!r}: {checkpoint.folder / 'config.json'}: {problem}")


def _check_complete(checkpoint: Checkpoint, report: dict[str, Any]) -> None:
    """Refuse weights that lack tensors, or that have tensors of another shape than the network.

    Args:
        checkpoint: The checkpoint.
        report: Transformers' report of the load.
    """
    place = f"model {checkpoint.name!r}: the weights in {checkpoint.folder}"
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, found, expected = mismatched[0]
        raise DataError(
            f"{place} do not fit config.json: {name} has the shape {tuple(found)}, and config.json asks for "
            f"{tuple(expected)}: download the checkpoint again"
        )
    # Transformers fills missing tensors with random numbers. The mask token may be missing: only training uses it.
    missing = sorted(key for key in report["missing_keys"] if "mask_token" not in key)
    if missing:
        raise DataError(
            f"{place} lack {len(missing)} tensors of the model that config.json describes (such as {missing[0]}): "
            "download the checkpoint again"
        )
