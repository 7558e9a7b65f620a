"""Turn pixel values into normalised images on the model's device.

This module needs PyTorch and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class Colours:
    """Scales pixel values to colours in 0..1, then normalises the colours as the checkpoint needs them.

    Args:
        low: Values that become 0, one for each of red, green and blue.
        high: Values that become 1, likewise.
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
        """Images for the network. The colours are those of `ResolvedRadiometry.scaled`, by the same formula in float32.

        Args:
            pixels: values on the device, shape (n, 1 or 3, size, size), any dtype that float32 holds.
            valid: shape (n, size, size), bool; the others get the mean colour. None: all are valid.
            side: side in px of the result.

        Returns:
            Shape (n, 3, side, side), float32.
        """
        images = pixels.float() - self._low
        images = images.div_(self._span).clamp_(0.0, 1.0).sub_(self._mean).div_(self._std)
        if valid is not None:
            images = torch.where(valid[:, None], images, 0.0)
        if images.shape[-1] != side:
            # Normalising is linear, so resizing after it gives what transformers' image processor gives by resizing
            # first. Invalid pixels, which are 0 now, stay neutral.
            images = functional.interpolate(
                images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
        return images
