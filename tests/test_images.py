"""Image files: photos turned upright, every kind as RGB, nothing half or huge, and labels for what they are."""

from __future__ import annotations

import errno
import io
import os
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from semslam.images import (
    ColorReader,
    CorruptFrame,
    DepthReader,
    depth_of_units,
    depth_units,
    fitting_scale,
    natural_key,
    read_color,
    read_depth,
    read_uint16,
    write_png,
)
from semslam.images.labels import LabelReader, numbering, read_labels
from semslam.labels import LABEL_SETS, voc_palette
from sequences import open_sequence
from sequences.files import Archive, Folder
from sequences.recordings.folder import write_folder

RNG = np.random.default_rng(0)
PHOTO = cv2.resize(RNG.integers(0, 255, (6, 8, 3)).astype(np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
IDS = np.arange(48 * 64).reshape(48, 64).astype(np.uint8) % 41  # 0 = void, 1..40


def save(path: Path, mode: str, **options: object) -> Path:
    Image.fromarray(PHOTO).convert(mode).save(path, **options)
    return path


# ------------------------------------------------------------------------------------------- photos


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photo_is_turned_as_its_exif_says_and_a_recordings_image_is_not(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x112] = orientation
    plain = read_color(save(tmp_path / f"plain.{suffix}", "RGB"))
    path = save(tmp_path / f"turned.{suffix}", "RGB", exif=exif)
    mirrored = orientation in (2, 4, 5, 7)
    quarters = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    expected = np.rot90(plain, quarters)
    expected = expected[:, ::-1] if mirrored and quarters % 2 == 0 else expected[::-1] if mirrored else expected
    np.testing.assert_array_equal(read_color(path, upright=True), expected)
    np.testing.assert_array_equal(read_color(path), plain)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_every_kind_of_image_is_read_as_8_bit_rgb(tmp_path, mode):
    image = read_color(save(tmp_path / "image.png", mode))
    expected = np.asarray(Image.fromarray(PHOTO).convert(mode).convert("RGB"))
    np.testing.assert_array_equal(image, expected)


def test_16_bit_colour_is_reduced_and_a_depth_image_is_no_photo(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), PHOTO[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_color(tmp_path / "deep.png"), PHOTO)
    cv2.imwrite(str(tmp_path / "twelve.png"), PHOTO[..., ::-1].astype(np.uint16) * 16)  # of a camera with 12 bits
    np.testing.assert_array_equal(read_color(tmp_path / "twelve.png"), PHOTO)
    write_png(tmp_path / "depth.png", np.full((4, 4), 1500, np.uint16))
    with pytest.raises(CorruptFrame, match=r"depth\.png: is uint16 with one channel, as depth images are"):
        read_color(tmp_path / "depth.png")


def test_16_bit_colour_of_a_recording_is_reduced_alike_in_dark_images_and_bright_ones(tmp_path, caplog):
    bright = PHOTO[..., ::-1].astype(np.uint16) * 257
    for images, name in (([bright // 32, bright], "deep"), ([bright // 512, bright // 257 * 16], "twelve")):
        paths = [tmp_path / f"{name}{i}.png" for i in range(2)]
        for path, image in zip(paths, images):
            cv2.imwrite(str(path), image)
        dark, light = map(ColorReader(tuple(paths)), paths)
        assert abs(light.astype(int) - PHOTO).max() <= 1 and dark.max() < 0.07 * light.max()
    assert [record.args[1] for record in caplog.records] == [16, 12]


@pytest.mark.parametrize("packed", [False, True])
def test_16_bit_colour_of_files_in_folders_and_archives_is_reduced_alike(tmp_path, packed):
    bright = PHOTO[..., ::-1].astype(np.uint16) * 257
    for i, image in enumerate([bright // 32, bright]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    files = Folder(tmp_path)
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for i in range(2):
                archive.write(tmp_path / f"{i}.png", f"./rgb//{i}.png")
        files = Archive(tmp_path / "a.zip")
    dark, whole = (files.image(name) for name in files.names if name.endswith(".png"))
    np.testing.assert_array_equal(whole, PHOTO)
    assert np.abs(dark.astype(int) - PHOTO // 32).max() <= 1
    with pytest.raises(CorruptFrame, match=r"none\.png: the file is missing"):
        files.image("none.png")


def test_floats_that_are_no_metres_are_told_by_all_files_of_a_folder(tmp_path):
    """A near image alone could be metres; so in recordings of phones as in plain folders."""
    for i, millimetres in enumerate((150.0, 1500.0, 2500.0)):
        np.save(tmp_path / f"{i}.npy", np.full((4, 6), millimetres, np.float32))
    files = Folder(tmp_path)
    found = [float(files.depth(name, 1000.0)[0, 0]) for name in files.names]
    np.testing.assert_allclose(found, [0.15, 1.5, 2.5], rtol=1e-6)


def test_two_files_of_one_name_in_an_archive_are_refused(tmp_path):
    for suffix in (".png", ".jpg"):
        cv2.imwrite(str(tmp_path / f"1{suffix}"), PHOTO)
    with pytest.raises(ValueError, match=r"1\.jpg and 1\.png are one frame; remove one"):
        Folder(tmp_path).under("", (".jpg", ".png"))


@pytest.mark.parametrize("share", [0.02, 0.15, 0.5, 0.9, 0.999])
def test_no_part_of_an_image_passes_for_the_whole(tmp_path, share):
    """Also where the part is little more than a thumbnail, which has an end mark of its own."""
    thumbnail = io.BytesIO()
    Image.fromarray(PHOTO).save(thumbnail, "JPEG", quality=100)
    inside = thumbnail.getvalue()
    Image.fromarray(np.tile(PHOTO, (4, 4, 1))).save(tmp_path / "a.jpg", quality=95)
    whole = (tmp_path / "a.jpg").read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(inside) + 2) + inside
    whole = whole[:2] + segment + whole[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    assert read_color(tmp_path / "a.jpg").shape == (240, 320, 3)
    (tmp_path / "a.jpg").write_bytes(whole + b"what a camera appends")
    assert read_color(tmp_path / "a.jpg").shape == (240, 320, 3)
    (tmp_path / "a.jpg").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CorruptFrame, match=r"a\.jpg: the file is truncated"):
        read_color(tmp_path / "a.jpg")
    save(tmp_path / "b.png", "RGB")
    part = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(part[: int(len(part) * share)])
    with pytest.raises(CorruptFrame, match=r"b\.png: (the file is truncated|the file is no image)"):
        read_color(tmp_path / "b.png")


def test_a_damaged_png_is_refused_before_a_decoder_fills_in_the_rest(tmp_path, capfd):
    write_png(tmp_path / "depth.png", RNG.integers(0, 5000, (48, 64)).astype(np.uint16))
    data = bytearray((tmp_path / "depth.png").read_bytes())
    data[len(data) // 2] ^= 0x10
    (tmp_path / "depth.png").write_bytes(bytes(data))
    with pytest.raises(CorruptFrame, match=r"truncated|damaged"):
        read_uint16(tmp_path / "depth.png")
    assert capfd.readouterr().err == ""


def jpeg(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


# ------------------------------------------------------------------------------------------- what is no image


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with the few bytes that this many zeros are packed into, or less."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(16000, 16000), (65535, 65535), (2**31 - 1, 2**31 - 1), (0, 10)])
def test_the_size_that_a_header_claims_is_bounded_before_anything_is_decoded(tmp_path, size):
    import resource

    (tmp_path / "a.png").write_bytes(png_of(*size))
    jpeg = cv2.imencode(".jpg", PHOTO)[1].tobytes()
    place = jpeg.index(b"\xff\xc0") + 5
    sides = struct.pack(">HH", min(size[1], 65535), min(size[0], 65535))
    (tmp_path / "a.jpg").write_bytes(jpeg[:place] + sides + jpeg[place + 4 :])
    (tmp_path / "a.bmp").write_bytes(
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, size[0], size[1], 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(46)
    )
    (tmp_path / "a.ppm").write_bytes(b"P6 %d %d 255\n" % size + bytes(100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for suffix in ("png", "jpg", "bmp", "ppm"):
        with pytest.raises(
            CorruptFrame, match=rf"a\.{suffix}: (claims .* expected at most 64 million|the file is no image)"
        ):
            read_color(tmp_path / f"a.{suffix}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_pipes_devices_folders_and_texts_are_told_from_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, problem in (("pipe.png", "is a pipe"), ("text.png", "is no image"), ("empty.png", "is empty"),
                          ("none.png", "is missing"), ("", "is a folder")):  # fmt: skip
        with pytest.raises(CorruptFrame, match=problem):
            read_color(tmp_path / name)
    with pytest.raises(CorruptFrame, match="is a pipe or a device"):
        read_color(Path("/dev/zero"))


def test_names_are_sorted_by_their_numbers_and_odd_digits_are_letters():
    names = ["frame10.png", "frame2.png", "frame².png", "frame٣.png", "9" * 200 + ".png"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_key)]
    assert ordered.index("frame2.png") < ordered.index("frame10.png") and len(ordered) == 5


def test_a_name_that_is_no_utf8_is_a_name(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    write_png(path, PHOTO)
    np.testing.assert_array_equal(read_color(path), PHOTO)


# ------------------------------------------------------------------------------------------- labels


def test_labels_are_read_from_ids_palettes_repeated_channels_and_colours(tmp_path):
    expected = IDS - np.uint8(1)
    write_png(tmp_path / "ids.png", IDS)
    write_png(tmp_path / "deep.png", IDS.astype(np.uint16))
    write_png(tmp_path / "three.png", np.repeat(IDS[..., None], 3, axis=2))
    palette = Image.fromarray(IDS).convert("P")
    palette.putpalette(np.concatenate([np.zeros((1, 3), np.uint8), voc_palette(255)]).tobytes())
    palette.save(tmp_path / "voc.png")
    for name, colors in LABEL_SETS["nyu40"].palettes.items():
        known = replace(LABEL_SETS["nyu40"], colors=colors)
        write_png(tmp_path / f"color-{name}.png", known.colorize(expected))
        assert len(np.unique(colors, axis=0)) == 40
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_labels(path), expected, err_msg=path.name)


def test_ids_from_0_with_void_as_255_are_no_colours_in_three_channels(tmp_path):
    ids = np.where(IDS == 40, np.uint8(255), IDS)
    write_png(tmp_path / "three.png", np.repeat(ids[..., None], 3, axis=2))
    np.testing.assert_array_equal(LabelReader((tmp_path / "three.png",), "nyu40")(tmp_path / "three.png"), ids)


def test_a_palette_that_shuffles_the_numbers_counts_by_its_colours(tmp_path):
    """What image editors make of colour-coded labels: the numbers mean nothing then."""
    known = LABEL_SETS["nyu40"]
    colored = Image.fromarray(known.colorize(IDS - np.uint8(1))).quantize(64, method=Image.Quantize.MAXCOVERAGE)
    exact = np.asarray(colored.convert("RGB"))
    colored.save(tmp_path / "edited.png")
    if (exact == known.colorize(IDS - np.uint8(1))).all():
        np.testing.assert_array_equal(read_labels(tmp_path / "edited.png"), IDS - np.uint8(1))
    strange = Image.fromarray(IDS).convert("P")
    strange.putpalette(RNG.integers(0, 255, 768).astype(np.uint8).tobytes())
    strange.save(tmp_path / "strange.png")
    with pytest.raises(
        CorruptFrame, match=r"strange\.png: (no pixel has|only .* of the pixels have) a colour of nyu40"
    ):
        read_labels(tmp_path / "strange.png")


def test_photos_and_foreign_ids_are_no_labels(tmp_path):
    write_png(tmp_path / "photo.png", PHOTO)
    with pytest.raises(CorruptFrame, match=r"photo\.png: has \d+ colours, as photos"):
        read_labels(tmp_path / "photo.png")
    write_png(tmp_path / "scannet.png", IDS.astype(np.uint16) * 30)
    with pytest.raises(CorruptFrame, match=r"scannet\.png: label id \d+ is outside nyu40"):
        read_labels(tmp_path / "scannet.png")


def files_of(folder: Path, images: list[np.ndarray]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_png(path, image)
    return paths


def test_files_that_count_from_0_and_call_void_255_are_recognised_and_told(tmp_path, caplog):
    """As the labels of the reference trainers do."""
    ours = [IDS, np.roll(IDS, 100)]
    theirs = [image - np.uint8(1) for image in ours]
    for folder, images in (("ours", ours), ("theirs", theirs)):
        paths = files_of(tmp_path / folder, images)
        known = numbering(paths, "nyu40")
        for path, expected in zip(paths, theirs, strict=True):
            np.testing.assert_array_equal(read_labels(path, known), expected)
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path / 'theirs'}: ") and "255 is taken for void, and 0 for the first class" in told
    assert numbering(paths, "nyu40", first_id=1).first_file_id == 1  # what is said counts


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (1, 1)])
@pytest.mark.parametrize("classes", ["nyu40", "nyu13", "kitti6"])
def test_masks_are_no_labels(tmp_path, values, classes):
    mask = np.where(IDS > 20, values[1], values[0]).astype(np.uint8)
    with pytest.raises(CorruptFrame, match=r"hold nothing but .* as masks do"):
        numbering(files_of(tmp_path / "masks", [mask, mask]), classes)


def test_the_labels_of_a_recording_are_read_as_its_files_count(tmp_path):
    """0..39 with 255 for void, as well as 1..40 with 0; and masks are no labels."""
    sequence = open_sequence("room:frames=3,width=64,height=48")
    write_folder(sequence, tmp_path)
    ours = [frame.labels for frame in open_sequence(tmp_path)]
    for path in (tmp_path / "label40").iterdir():
        write_png(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED) - np.uint8(1))
    (first := sorted((tmp_path / "label40").iterdir())[0]).write_bytes(b"")
    write_png(first, np.where(ours[0] == 3, 255, ours[0]))  # void somewhere
    theirs = open_sequence(tmp_path)
    assert all((theirs[i].labels == ours[i]).all() for i in (1, 2)) and (theirs[0].labels == 255).any()
    for path in (tmp_path / "label40").iterdir():
        write_png(path, (ours[0] > 2).astype(np.uint8))
    with pytest.raises(ValueError, match="as masks do"):
        open_sequence(tmp_path)


def test_too_many_open_files_are_no_corrupt_image_and_a_bad_sector_is(monkeypatch, tmp_path) -> None:
    def failing(number):
        def read(path, most):
            raise OSError(number, "as told", str(path))

        monkeypatch.setattr("semslam.images.decoding.contents", read)

    failing(errno.EMFILE)
    with pytest.raises(OSError, match="as told"):
        read_color(tmp_path / "a.png")
    failing(errno.EIO)
    with pytest.raises(CorruptFrame, match=r"a\.png: cannot be read \(as told\)"):
        read_color(tmp_path / "a.png")


@pytest.mark.parametrize("unit", [1.0, 1000.0, 100.0])
def test_floats_that_cannot_be_metres_count_the_units_of_the_recording(tmp_path, caplog, unit):
    metres = np.linspace(2.2, 6.0, 12, dtype=np.float32).reshape(3, 4)
    paths = [tmp_path / "near.npy", tmp_path / "far.tiff"]
    np.save(paths[0], 0.05 * metres * unit)  # alone it might be in metres
    cv2.imwrite(str(paths[1]), metres * unit)
    read = DepthReader(tuple(paths), depth_scale=1000.0 if unit == 1 else unit)
    np.testing.assert_allclose(read(paths[0]), 0.05 * metres, rtol=1e-5)
    np.testing.assert_allclose(read(paths[1]), metres, rtol=1e-5)
    assert len(caplog.records) == (unit != 1) and (unit == 1 or f"as {unit:g} units per metre" in caplog.text)


@pytest.mark.parametrize("scale", [1000.0, 5000.0])
def test_depth_that_is_written_reads_back_or_is_none(tmp_path, scale):
    depth = np.array([[0, 1.0, 65534 / scale, 65535 / scale, 65536 / scale]], np.float32)
    write_png(tmp_path / "a.png", depth_units(depth, scale))
    np.testing.assert_allclose(
        read_depth(tmp_path / "a.png", scale), np.where(depth < 65534.5 / scale, depth, 0), atol=1e-5
    )
    larger = fitting_scale(depth, scale)
    np.testing.assert_allclose(depth_of_units(depth_units(depth, larger), larger), depth, atol=0.5 / larger)
