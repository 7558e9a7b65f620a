"""How much longer large inputs take, compared with published numbers of multiplications."""

from __future__ import annotations

import pytest

from rasterembed.model.choice import Dinov3, ResolvedModel, resolve_model
from rasterembed.model.config_file import ConvNextArchitecture, VitArchitecture
from rasterembed.model.cost import costly_input, relative_cost

SMALL = VitArchitecture(patch_size=16, hidden_size=384)


def demo(side: int) -> ResolvedModel:
    return resolve_model(Dinov3(input_size=side, device="cpu"), 224)


def test_multiplications_are_those_of_the_papers() -> None:
    """A ViT-S/16 has 4.6 thousand million (Touvron et al. 2021), a ConvNeXt-T 4.5 (Liu et al. 2022), at 224 px."""
    tiny = ConvNextArchitecture(hidden_sizes=[96, 192, 384, 768])
    assert SMALL.multiplications(224) == pytest.approx(4.6e9, rel=0.05)
    assert tiny.multiplications(224) == pytest.approx(4.5e9, rel=0.1)
    assert tiny.multiplications(448) == 4 * tiny.multiplications(224)


def test_a_warning_says_how_much_longer_a_large_tile_takes() -> None:
    """The ratio is computed here again, for the demo model: width 192, MLP 384, 4 layers, 5 other tokens."""
    tokens, usual = 256**2 + 5, 14**2 + 5
    each = 4 * 192**2 + 2 * 192 * 384
    ratio = (tokens * each + 2 * tokens**2 * 192) / (usual * each + 2 * usual**2 * 192)

    assert relative_cost(demo(4096), 4096) == pytest.approx(ratio)
    assert ratio == pytest.approx(22_000, rel=0.03)
    said = costly_input(demo(4096), 4096)
    assert said is not None
    assert "has 4096 px a side: one tile takes about 20,000 times as long as a tile of 224 px" in said
    assert "use a smaller `size`, or `input_size=224`" in said
    assert (costly_input(demo(4096), 224) or "").endswith(": use a smaller `input_size`")


@pytest.mark.parametrize("side", [64, 224, 512, 1024])
def test_usual_inputs_give_no_warning(side: int) -> None:
    assert costly_input(demo(side), side) is None
