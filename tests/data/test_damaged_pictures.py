"""Pictures that are turned, deep, cut, disguised or far larger than their files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from dummy_data import picture, save_image, save_mask, write_folder, write_voc
from PIL import Image, ImageOps

from segladder.data.inspection.checks import check_item
from segladder.data.sources.davis import Davis
from segladder.data.sources.decoding import read_image, read_mask, read_upright_image
from segladder.data.sources.folder import Folder
from segladder.data.sources.support import read_supports
from segladder.data.sources.voc import VOC
from segladder.data.training.cache import images_of
from segladder.errors import DataError

TURNED = range(2, 9)


def save_turned(path: Path, image: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, exif=exif)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, packed: bytes, colour: int = 0, bits: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_photograph_is_read_as_it_is_looked_at(tmp_path: Path, suffix: str, orientation: int) -> None:
    save_turned(path := tmp_path / f"photo{suffix}", picture(0)[0], orientation)
    with Image.open(path) as stored:
        shown = np.array(ImageOps.exif_transpose(stored).convert("RGB"))
    found = read_image(path)
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).mean() < 3


@pytest.mark.parametrize("orientation", TURNED)
def test_a_turned_image_with_a_mask_is_refused_wherever_pairs_are_read(tmp_path: Path, orientation: int) -> None:
    image, mask = picture(0, (64, 64), values=(1,))
    root = write_folder(tmp_path)
    save_turned(root / "images" / "turned.jpg", image, orientation)
    save_mask(root / "masks" / "turned.png", mask)
    data = Folder(root)
    told = rf"turned\.jpg: EXIF orientation {orientation}, expected 1.*save it upright"
    with pytest.raises(DataError, match=told):
        data.pair("turned")
    with pytest.raises(DataError, match=told):
        images_of(data, ["turned"])[0]
    save_turned(tmp_path / "support" / "images" / "turned.jpg", image, orientation)
    save_mask(tmp_path / "support" / "masks" / "turned.png", mask)
    with pytest.raises(DataError, match=told):
        read_supports(tmp_path / "support")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_turned_mask_is_refused(tmp_path: Path, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    mask = Image.fromarray(picture(0)[1])
    if mode == "P":  # Pillow leaves its rows as they are, which a decoder of our own reads
        mask.putpalette(range(255))
    mask.save(tmp_path / "mask.png", exif=exif, optimize=mode == "L")
    with pytest.raises(DataError, match=r"mask\.png: EXIF orientation 3, expected 1"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("progressive", [False, True])
def test_what_a_phone_adds_behind_a_photograph_is_no_damage(tmp_path: Path, progressive: bool) -> None:
    Image.fromarray(picture(0)[0]).save(path := tmp_path / "photo.jpg", progressive=progressive)
    alone = read_image(path)
    with path.open("ab") as file:
        file.write(b"\0\0\0\x18ftypmp42" + bytes(5000))
    assert np.array_equal(read_image(path), alone)


def test_the_small_picture_inside_a_photograph_does_not_end_it(tmp_path: Path) -> None:
    Image.fromarray(picture(0, (20, 20))[0]).save(small := io.BytesIO(), "JPEG")
    Image.fromarray(picture(1, (200, 200))[0]).save(path := tmp_path / "photo.jpg", comment=small.getvalue())
    assert read_image(path).shape == (200, 200, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\xff\xda") + 100])  # of the pixels a few
    with pytest.raises(DataError, match=r"photo\.jpg: damaged or truncated"):
        read_image(path)


def test_an_orientation_that_says_nothing_is_upright(tmp_path: Path) -> None:
    for orientation in (0, 1, 9):
        save_turned(path := tmp_path / f"{orientation}.jpg", picture(0)[0], orientation)
        assert np.array_equal(read_upright_image(path), read_image(path))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_refused_not_crushed(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(800, 2100, (30, 40, channels)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"deep{suffix}"), values)
    with pytest.raises(DataError, match=rf"deep\{suffix}: uint16 a channel, expected 8 bits; scale"):
        read_image(tmp_path / f"deep{suffix}")


def test_a_jpeg_named_png_is_no_mask(tmp_path: Path) -> None:
    Image.fromarray(picture(0)[1]).save(tmp_path / "mask.png", format="JPEG")
    for read in (read_mask, Davis(tmp_path).decode_mask):
        with pytest.raises(DataError, match=r"mask\.png: JPEG data, expected a PNG"):
            read(tmp_path / "mask.png")


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (0, 10), (10, 0)])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_header_of_no_size_or_of_any_is_named(tmp_path: Path, read, width: int, height: int, bits: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(width, height, zlib.compress(b""), bits=bits))
    with pytest.raises(DataError, match=r"bomb\.png: (\d+x\d+ pixels|Image size .* into tiles|damaged)"):
        read(tmp_path / "bomb.png")


def test_no_more_is_unpacked_than_the_header_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    (tmp_path / "bomb.png").write_bytes(png(10, 10, packed))
    sizes: list[int] = []
    real = zlib.decompressobj

    class Measured:
        """A decompressor that notes how much it gives."""

        def __init__(self, *arguments: int) -> None:
            self.real = real(*arguments)

        def decompress(self, data: bytes, *most: int) -> bytes:
            found = self.real.decompress(data, *most)
            sizes.append(len(found))
            return found

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    monkeypatch.setattr(zlib, "decompressobj", Measured)
    with suppress(DataError):
        read_mask(tmp_path / "bomb.png")
    assert sizes and sum(sizes) <= 10 * (10 + 1) + 1  # each row begins with its filter; one byte more shows the rest


def test_a_large_jpeg_header_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "bomb.jpg").write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.jpg: Image size .* into tiles"):
        read_image(tmp_path / "bomb.jpg")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_pipe_is_no_picture(tmp_path: Path, read) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: no regular file, expected"):
        read(tmp_path / "pipe.png")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_an_empty_file_is_named(tmp_path: Path, read) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png: damaged"):
        read(tmp_path / "empty.png")


def test_ordinary_pictures_are_read_as_before(tmp_path: Path) -> None:
    image, mask = picture(0)
    save_image(tmp_path / "a.png", image)
    save_mask(tmp_path / "m.png", mask)
    assert np.array_equal(read_upright_image(tmp_path / "a.png"), image)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("damage", ["cut and closed", "noise inside", "cut"])
def test_check_finds_a_jpeg_that_decoders_fill_up(tmp_path: Path, progressive: bool, damage: str) -> None:
    root = write_voc(tmp_path)
    data = VOC(root, train_split="train")
    path = data.image_path("2007_train00")
    assert check_item(data, "2007_train00").faults == []
    Image.fromarray(picture(0)[0]).save(path, quality=95, progressive=progressive)
    whole = path.read_bytes()
    middle = len(whole) * 2 // 3
    path.write_bytes(
        {
            "cut": whole[:middle],
            "cut and closed": whole[:middle] + b"\xff\xd9",
            "noise inside": whole[:middle] + np.random.default_rng(0).bytes(100) + whole[middle + 100 :],
        }[damage]
    )
    (fault,) = check_item(data, "2007_train00").faults
    assert fault.startswith(f"{path}: damaged")


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_few_bits_is_no_mask(tmp_path: Path, bits: int) -> None:
    (path := tmp_path / "few.png").write_bytes(png(4, 1, zlib.compress(bytes([0, 0b00011011, 0])), bits=bits))
    with pytest.raises(DataError, match=rf"few\.png: gray of {bits} bits, .* save it in 8 bits"):
        read_mask(path)
