import io
import os
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from data.making import picture, png_bytes, save
from timebox import machine
from timebox.data.images import decode
from timebox.data.images.decode import IMAGE_SUFFIXES, decode_image, fit_images, read_header
from timebox.errors import DataError


def test_images_of_the_right_size_are_not_resampled(tmp_path):
    image = picture((6, 4))
    decoded = decode_image(save(tmp_path / "a.png", image), (4, 6), 3)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, np.asarray(image))


def test_an_open_file_is_read_like_a_path():
    image = picture()
    assert np.array_equal(decode_image(io.BytesIO(png_bytes(image)), (16, 16), 3), np.asarray(image))


def test_crop_scales_the_shorter_side_and_keeps_the_centre(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 18:42] = 255
    path = save(tmp_path / "wide.png", Image.fromarray(pixels))
    assert (decode_image(path, (10, 10), 3) == 255).all()
    assert (decode_image(path, (10, 30), 3)[0, :, 0] > 128).tolist() == [False] * 9 + [True] * 12 + [False] * 9


def test_a_large_jpeg_is_averaged_not_sampled(tmp_path):
    noise = picture((512, 512), "L")
    decoded = decode_image(save(tmp_path / "n.jpg", noise, quality=95), (32, 32), 1)
    assert decoded.mean() == pytest.approx(np.asarray(noise).mean(), abs=3)
    assert decoded.std() < 20  # 256 pixels averaged into one; a sampled pixel would spread by 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 255  # bright at the top left
    stored = Image.fromarray(upright)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose values that turn it away from upright
    if orientation in undo:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", stored, exif=exif)
    assert np.array_equal(decode_image(path, (8, 16), 3), upright)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_converts_to_every_number_of_channels(tmp_path, mode, channels):
    grey = np.full((8, 8), 200, np.uint8)
    if mode.startswith("I"):
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        image = image.convert("I") if mode == "I" else image
    else:
        image = Image.fromarray(grey).convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr", "I") else "png"
    decoded = decode_image(save(tmp_path / f"x.{suffix}", image), (8, 8), channels)
    assert decoded.shape == (8, 8, channels)
    if mode != "1":
        assert np.abs(decoded[..., : min(channels, 3)].astype(int) - 200).max() <= 3


def test_transparent_pixels_get_a_white_background(tmp_path):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode_image(save(tmp_path / "clear.png", image), (8, 8), 3) == 255).all()
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30] * 256)
    path = save(tmp_path / "clear.gif", palette, transparency=0)
    assert (decode_image(path, (8, 8), 3) == 255).all()


def test_alpha_is_kept_in_four_channels(tmp_path):
    path = save(tmp_path / "half.png", Image.new("RGBA", (8, 8), (255, 0, 0, 128)))
    assert decode_image(path, (8, 8), 4)[0, 0].tolist() == [255, 0, 0, 128]


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("L", (8, 8), grey) for grey in (10, 240)]
    path = save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (decode_image(path, (8, 8), 1) == 10).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "webp", "ppm"])
def test_a_truncated_file_is_detected(tmp_path, suffix):
    path = save(tmp_path / f"cut.{suffix}", picture((64, 64)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError):
        decode_image(path, (8, 8), 3)


def test_error_messages(tmp_path):
    cut = save(tmp_path / "cut.jpg", picture((64, 64)))
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    reasons = {
        "cut.jpg": "^truncated: ",
        "empty.jpg": "^empty file",
        "text.jpg": "^not an image",
        "gone.jpg": "No such",
    }
    for name, words in (reasons | {"float.tif": "floating-point pixels"}).items():
        with pytest.raises(DataError, match=words):
            decode_image(tmp_path / name, (8, 8), 3)


def test_postscript_is_never_run(tmp_path):
    path = tmp_path / "evil.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="not an image"):
        decode_image(path, (8, 8), 3)


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("timebox.data.images.decode.MAX_DECODED_PIXELS", 50)
    path = save(tmp_path / "bomb.png", Image.new("L", (8, 8)))
    with pytest.raises(DataError, match="8x8 pixels are over the limit of 50 pixels"):
        decode_image(path, (8, 8), 1)
    huge = bytearray(png_bytes(Image.new("1", (8, 8))))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # the header's width and height; its checksum is seen to first
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(huge)
    with pytest.raises(DataError, match="over the limit of pixels"):
        read_header(tmp_path / "huge.png")


def test_a_header_has_size_mode_and_true_format(tmp_path):
    header = read_header(save(tmp_path / "a.png", picture((6, 4), "L")))
    assert (header.width, header.height, header.mode, header.is_grey, header.misnamed_as) == (6, 4, "L", True, None)
    (tmp_path / "a.png").rename(tmp_path / "a.JPG")
    assert read_header(tmp_path / "a.JPG").misnamed_as == "PNG"


def test_global_settings_of_pillow_are_unchanged(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    decode_image(save(tmp_path / "a.png"), (8, 8), 3)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_suffixes_of_phone_photos():
    assert {".jpg", ".jpeg", ".png", ".webp", ".heic"} <= IMAGE_SUFFIXES
    assert len(IMAGE_SUFFIXES) == 31


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("source_channels", [1, 3, 4])
def test_fit_images_equals_decode_image(tmp_path, source_channels, channels):
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    image = picture((20, 12), modes[source_channels])
    images = np.asarray(image).reshape(1, 12, 20, source_channels)
    fitted = fit_images(images, (8, 8), channels)
    assert np.array_equal(fitted[0], decode_image(save(tmp_path / "x.png", image), (8, 8), channels))


def test_arrays_that_fit_are_not_copied():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert fit_images(images, (8, 8), 3) is images


def test_files_and_images_over_a_limit_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")
    monkeypatch.setattr("timebox.data.images.decode.MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="bytes are over the limit of 100 bytes"):
        decode_image(path, (8, 8), 3)


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("timebox.data.images.decode.LARGE_PIXELS", 100)
    path = save(tmp_path / "a.png", picture((16, 16)))
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda _: decode_image(path, (16, 16), 3), range(8)))
    assert all(np.array_equal(pixels, np.asarray(picture((16, 16)))) for pixels in decoded)


def test_half_a_jpeg_is_detected(tmp_path):
    path = save(tmp_path / "half.jpg", picture((64, 64)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Image.open(path) as image:
        image.verify()
    with pytest.raises(DataError, match="truncated"):
        decode_image(path, (64, 64), 3)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name, words in (("pipe.jpg", "a named pipe"), ("zero.jpg", "a device")):
        for read in (read_header, lambda path: decode_image(path, (8, 8), 3)):
            with pytest.raises(DataError, match=f"{words}, not a file"):
                read(tmp_path / name)


def test_a_letterbox_keeps_everything_and_pads_with_black(tmp_path):
    path = save(tmp_path / "wide.png", Image.new("RGB", (60, 20), "white"))
    boxed = decode_image(path, (30, 30), 3, "letterbox")
    assert (boxed[10:20] == 255).all()
    assert (boxed[:10] == 0).all()
    assert (boxed[20:] == 0).all()
    tall = decode_image(save(tmp_path / "tall.png", Image.new("L", (1, 500), 255)), (30, 30), 1, "letterbox")
    assert (tall.max(0)[:, 0] == 255).nonzero()[0].tolist() == [14]
    assert np.array_equal(fit_images(np.full((1, 20, 60, 3), 255, np.uint8), (30, 30), 3, "letterbox")[0], boxed)


def test_a_large_jpeg_in_a_letterbox_is_averaged_too(tmp_path):
    noise = picture((1024, 256), "L")
    decoded = decode_image(save(tmp_path / "n.jpg", noise, quality=95), (64, 64), 1, "letterbox")
    inside = decoded[24:40]
    assert inside.mean() == pytest.approx(np.asarray(noise).mean(), abs=3)
    assert inside.std() < 20
    assert (decoded[:24] == 0).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_a_large_image_is_refused_where_memory_is_short(tmp_path, monkeypatch, mode):
    Image.new(mode, (90, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(decode, "LARGE_PIXELS", 5_000)
    monkeypatch.setattr(machine, "UNCHECKED_BYTES", 0)
    monkeypatch.setattr(machine, "available_memory", lambda: 86_400)
    assert decode_image(tmp_path / "a.png", (8, 8)).shape == (8, 8, 3)
    monkeypatch.setattr(machine, "available_memory", lambda: 86_399)
    for read in (lambda path: decode_image(path, (8, 8)), decode_image):
        with pytest.raises(DataError, match=r"^it needs about 0\.1 MB of memory for 90x60 pixels, and 0\.1 MB are"):
            read(tmp_path / "a.png")
