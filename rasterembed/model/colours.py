"""From pixel values to what the network takes, on the device. Needs PyTorch and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


class Colours:
    """How values become normalised colour: black and white of each channel, then the checkpoint's mean and deviation.

    Args:
        low: value that becomes 0, three numbers.
        high: value that becomes 1.
        mean: of the colours in 0..1 that the network was trained with.
        std: their standard deviation.
        device: where images are.
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
            # after normalising, which is linear: the same as the processor's order, and invalid pixels stay neutral
            images = functional.interpolate(
                images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
        return images
