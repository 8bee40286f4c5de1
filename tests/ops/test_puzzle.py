"""Tiles and their order, putting them together, and the reconstruction loss against the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segladder.ops.puzzle import merge, reconstruction_loss, tile


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
def test_merging_undoes_tiling_where_sizes_divide(side, batch, channels, height, width):
    x = draw(batch, channels, side * height, side * width)
    assert torch.equal(merge(tile(x, side * side), side * side), x)


@given(st.integers(1, 4), st.integers(1, 11), st.integers(1, 11))
def test_any_size_is_filled_up_by_its_border(side, height, width):
    x = draw(2, 1, height, width)
    merged = merge(tile(x, side * side), side * side)
    assert merged.shape[-2] % side == merged.shape[-1] % side == 0
    assert 0 <= merged.shape[-2] - height < side and 0 <= merged.shape[-1] - width < side
    rows, columns = (torch.arange(n).clamp_max(m - 1) for n, m in zip(merged.shape[-2:], (height, width), strict=True))
    assert torch.equal(merged, x[..., rows, :][..., columns])


def test_pieces_come_first_row_by_row():
    x = torch.arange(2 * 4 * 6).view(2, 1, 4, 6).to(torch.uint8)
    tiles = tile(x, 4)
    assert torch.equal(tiles[1], x[1, :, :2, :3])  # top left of the second image
    assert torch.equal(tiles[2], x[0, :, :2, 3:])  # top right of the first
    assert torch.equal(tiles[4], x[0, :, 2:, :3])  # bottom left of the first


@pytest.mark.parametrize("pieces", [0, 2, 8, -4])
def test_pieces_must_be_a_square(pieces):
    for cut in (tile, merge):
        with pytest.raises(ValueError, match=f"pieces={pieces}: expected a square"):
            cut(torch.zeros(4, 1, 4, 4), pieces)


def test_tiles_must_fill_their_images():
    with pytest.raises(ValueError, match="pieces=9: expected to divide the 8 tiles"):
        merge(torch.zeros(8, 1, 2, 2), 9)


def slow_loss(full, merged, labels, reduce):
    """Loops over images and classes."""
    means = []
    for image in range(len(full)):
        per_class = [float((full[image, c] - merged[image, c]).abs().mean()) for c in range(full.shape[1])]
        kept = [m for m, label in zip(per_class, labels[image], strict=True) if label]
        means.append(
            {
                "masked": sum(kept) / len(per_class),
                "none": sum(per_class) / len(per_class),
                "selection": sum(kept) / len(kept) if kept else 0,
            }[reduce]
        )
    return sum(means) / len(means)


@pytest.mark.parametrize("reduce", ["masked", "none", "selection"])
def test_loss_is_its_formula(reduce):
    full, merged = draw(3, 4, 5, 6), draw(3, 4, 5, 6).flip(0)
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).double()  # one image without any class
    assert float(reconstruction_loss(full, merged, labels, reduce)) == pytest.approx(
        slow_loss(full, merged, labels, reduce)
    )


def test_both_maps_receive_gradients_for_present_classes_alone():
    full, merged = draw(1, 2, 3, 3).requires_grad_(), draw(1, 2, 3, 3).mul(2).requires_grad_()
    reconstruction_loss(full, merged, torch.tensor([[1.0, 0.0]])).backward()
    torch.testing.assert_close(full.grad, -merged.grad)
    assert full.grad[0, 0].all() and not full.grad[0, 1].any()


def test_wrong_arguments_are_named():
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="reduce=sum: expected one of masked, none, selection"):
        reconstruction_loss(x, x, torch.ones(1, 1), "sum")
    with pytest.raises(ValueError, match=r"merged: .*\(1, 1, 4, 4\).*\(1, 1, 6, 6\)"):
        reconstruction_loss(x, torch.zeros(1, 1, 6, 6), torch.ones(1, 1))
