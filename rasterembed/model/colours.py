"""Turn pixel values into normalised images on the model's device.

This module imports only PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class Colours:
    """Scales pixel values to colours in 0..1, then normalises the colours as the checkpoint needs them.

    Args:
        low: Pixel values that become 0: one value each for red, green and blue.
        high: Pixel values that become 1: one value each for red, green and blue.
        mean: Mean of red, green and blue in 0..1, from the checkpoint.
        std: Standard deviation of red, green and blue in 0..1, from the checkpoint.
        device: Device of the images.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        span = [white - black for black, white in zip(low, high, strict=True)]
        self._low, self._span, self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)
            for values in (low, span, mean, std)
        )

    def images(self, pixels: Tensor, valid: Tensor | None, side: int) -> Tensor:
        """Return the images for the network. The scaling is that of `ResolvedRadiometry.scaled`, computed in float32.

        Args:
            pixels: pixel values on the device, shape (n, 1 or 3, size, size). Every value must be exact in float32.
            valid: whether each pixel is valid, shape (n, size, size), bool. Invalid pixels get the mean colour. None
                means that all pixels are valid.
            side: side of the images in px.

        Returns:
            Shape (n, 3, side, side), float32.
        """
        images = pixels.float() - self._low
        images = images.div_(self._span).clamp_(0.0, 1.0).sub_(self._mean).div_(self._std)
        if valid is not None:
            images = torch.where(valid[:, None], images, 0.0)
        if images.shape[-1] != side:
            # Here the colours are normalised before the image is resized. transformers' image processor resizes first.
            # Both orders give the same result, because normalising is linear. Invalid pixels have the value 0, which
            # is the mean colour.
            images = functional.interpolate(
                images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
        return images
