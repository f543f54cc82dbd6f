"""Images of every format and kind that OpenCV or Pillow write, made by the tests themselves."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, features

HEIGHT, WIDTH = 48, 64


def rgb(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def encoded(suffix: str, pixels: np.ndarray, *parameters: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(parameters))[1].tobytes()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def interlaced_png() -> bytes:
    """An Adam7 PNG, gray; Pillow and OpenCV write none."""
    pixels = np.asarray(rgb().convert("L"))
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    raw = b"".join(
        b"\0" + row.tobytes() for y, x, down, right in passes for row in pixels[y::down, x::right] if row.size
    )
    return png(WIDTH, HEIGHT, zlib.compress(raw), depth=8, colour=0, interlace=1)


def png(width: int, height: int, body: bytes, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pages(mode: str, count: int = 3, **options: object) -> bytes:
    first, *rest = [rgb(seed).convert(mode) for seed in range(count)]
    return saved(first, "TIFF", save_all=True, append_images=rest, **options)


def frames(form: str, count: int = 3, **options: object) -> bytes:
    first, *rest = [rgb(seed) for seed in range(count)]
    return saved(first, form, save_all=True, append_images=rest, **options)


def _images() -> dict[str, bytes]:
    noise = np.random.default_rng(7)
    deep = noise.integers(0, 65535, (HEIGHT, WIDTH, 3), np.uint16)
    alpha = rgb().convert("RGBA")
    alpha.putalpha(rgb(3).convert("L"))
    images = {f"exif{n}.jpg": saved(rgb(), "JPEG", exif=oriented(n)) for n in range(1, 9)}
    images |= {
        "plain.jpg": saved(rgb(), "JPEG"),
        "odd_size.jpeg": saved(rgb(height=37, width=51), "JPEG"),
        "gray.jpg": saved(rgb().convert("L"), "JPEG"),
        "cmyk.jpg": saved(rgb().convert("CMYK"), "JPEG"),
        "progressive.jpg": saved(rgb(), "JPEG", progressive=True),
        "thumbnail.jpg": b"\xff\xd8\xff\xe1"
        + struct.pack(">H", 900)
        + saved(rgb(1, 8, 8), "JPEG")[:898].ljust(898, b"\0")
        + saved(rgb(), "JPEG")[2:],
        "frames.mpo": frames("MPO"),
        "mpo.jpg": frames("MPO"),
        "rgb.png": saved(rgb(), "PNG"),
        "exif6.png": saved(rgb(), "PNG", exif=oriented(6)),
        "bilevel.png": saved(rgb().convert("1"), "PNG"),
        "palette.png": saved(rgb().convert("P"), "PNG"),
        "palette_transparent.png": saved(rgb().convert("P"), "PNG", transparency=3),
        "rgba.png": saved(alpha, "PNG"),
        "la.png": saved(alpha.convert("LA"), "PNG"),
        "gray16.png": encoded(".png", deep[..., 0]),
        "rgb16.png": encoded(".png", deep),
        "interlaced.png": interlaced_png(),
        "animated.png": frames("PNG"),
        "gray.tif": saved(rgb().convert("L"), "TIFF"),
        "rgb.tif": saved(rgb(), "TIFF"),
        "rgb.TIFF": saved(rgb(), "TIFF", compression="tiff_lzw"),
        "jpeg.tif": saved(rgb(), "TIFF", compression="jpeg"),
        "rgba.tif": saved(alpha, "TIFF"),
        "la.tif": saved(alpha.convert("LA"), "TIFF"),
        "cmyk.tif": saved(rgb().convert("CMYK"), "TIFF"),
        "palette.tif": saved(rgb().convert("P"), "TIFF"),
        "gray16.tif": encoded(".tif", deep[..., 0]),
        "rgb16.tif": encoded(".tif", deep),
        "rgba16.tif": encoded(".tif", np.dstack([deep, deep[..., :1]])),
        "float.tif": encoded(".tif", deep.astype(np.float32) / 65535),
        "exif6.tif": saved(rgb(), "TIFF", exif=oriented(6)),
        "big.tif": saved(rgb(), "TIFF", big_tiff=True),
        "pages.tif": pages("RGB"),
        "gray_pages.tif": pages("L"),
        "lossy.webp": saved(rgb(), "WEBP"),
        "lossless.webp": saved(rgb(), "WEBP", lossless=True),
        "alpha.webp": saved(alpha, "WEBP"),
        "alpha_lossless.webp": saved(alpha, "WEBP", lossless=True),
        "exif6.webp": saved(rgb(), "WEBP", exif=oriented(6)),
        "animated.webp": frames("WEBP"),
        "rgb.bmp": saved(rgb(), "BMP"),
        "gray.bmp": saved(rgb().convert("L"), "BMP"),
        "palette.bmp": saved(rgb().convert("P"), "BMP"),
        "rgba.bmp": saved(alpha, "BMP"),
        "rgb.jp2": saved(rgb(), "JPEG2000"),
        "gray.jp2": saved(rgb().convert("L"), "JPEG2000"),
        "codestream.jp2": saved(rgb(), "JPEG2000", no_jp2=True),
        "plain.gif": saved(rgb().convert("P"), "GIF"),
        "animated.gif": frames("GIF"),
        "rgb.ppm": saved(rgb(), "PPM"),
        "gray.pgm": saved(rgb().convert("L"), "PPM"),
        "rgb.ras": encoded(".ras", np.asarray(rgb())),
        "png_named.jpg": saved(rgb(), "PNG"),
        "jpeg_named.png": saved(rgb(), "JPEG", exif=oriented(6)),
        "jpeg_named.tif": saved(rgb(), "JPEG", exif=oriented(6)),
        "gif_named.tif": frames("GIF"),
        "webp_named.jpg": saved(rgb(), "WEBP"),
        "tiff_named.jpg": saved(rgb(), "TIFF"),
        "jpeg_named.avif": saved(rgb(), "JPEG", exif=oriented(6)),
        "png16_named.tif": encoded(".png", deep),
        "zero_tail.jpg": saved(rgb(), "JPEG") + bytes(5000),
        "text_tail.jpg": saved(rgb(), "JPEG") + b"appended by a camera",
        "no_suffix": saved(rgb(), "JPEG"),
    }
    if features.check("avif"):
        images |= {
            "rgb.avif": saved(rgb(), "AVIF"),
            "exif6.avif": saved(rgb(), "AVIF", exif=oriented(6)),
            "rgba.avif": saved(alpha, "AVIF"),
            "animated.avif": frames("AVIF"),
            "avif_named.jpg": saved(rgb(), "AVIF"),
        }
    return images


IMAGES = _images()
