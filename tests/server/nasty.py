"""What might somebody send who means harm? Each is built by hand, small on the wire, and named.

bodies()    of samples: image bombs, compression bombs, truncations, not finite, other shapes
headers()   of samples: absurd numbers, nesting, doubled and missing keys
words()     JSON messages
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import zstandard
from device_words import birth, frames, heartbeat, sample
from PIL import Image

from edge_agent.contract import images
from edge_agent.contract.wire import JSON_MAX_BYTES, encode, encode_frame, encode_sample

SIDE = 64


class Nasty(NamedTuple):
    """A message of device `bad`."""

    name: str
    kind: str
    payload: bytes


# --- files ---


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, *, colour: int = 2, between: bytes = b"") -> bytes:
    """A PNG whose header says what it is told to, with correct checksums; `pixels`: the zlib stream."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + between + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def photo(kind: str, *, side: int = SIDE, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return images.encode_image(pixels, images.Codec(kind, 80))


def saved(format_: str, pictures: int = 1, mode: str = "RGB", **how: object) -> bytes:
    frames_ = [Image.new(mode, (SIDE, SIDE), n) for n in range(pictures)]
    out = io.BytesIO()
    frames_[0].save(out, format_, **({"save_all": True, "append_images": frames_[1:]} if pictures > 1 else {}), **how)
    return out.getvalue()


def rows(side: int = SIDE) -> bytes:
    """The zlib stream of a black square."""
    return zlib.compress((b"\0" + bytes(3 * side)) * side)


BOMB = zlib.compress(bytes(60_000_000), 9)
ZSTD_BOMB = zstandard.compress(bytes(60_000_000))
WIDE_WINDOW = b"\x28\xb5\x2f\xfd\0\xa8" + bytes(20)  # announces a window of 2 GB (RFC 8878, 3.1.1.1.2)
LYING_SIZE = b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 7 + b"\x7f" + b"\x01\0\0"  # announces content of 2^63 - 1 bytes
ENDLESS_TEXT = chunk(b"zTXt", b"a\0\0" + BOMB)
ENDLESS_PROFILE = chunk(b"iCCP", b"a\0\0" + BOMB)
LOUD_TEXT = b"".join(chunk(b"tEXt", b"k%d\0" % n + b"x" * 50) for n in range(500))


def pictures() -> Iterator[tuple[str, str, bytes]]:
    """(name, encoding that the header claims, body); the header says (64, 64, 3) uint8."""
    yield "png of 100,000 x 100,000", "png", png(100_000, 100_000, rows())
    yield "png of 2^31 - 1 squared", "png", png(2**31 - 1, 2**31 - 1, rows())
    yield "png of 0 x 0", "png", png(0, 0, rows())
    yield "png of another size", "png", png(65, 64, rows())
    yield "png with text that inflates to 60 MB", "png", png(SIDE, SIDE, rows(8), between=ENDLESS_TEXT)
    yield "png with a profile that inflates to 60 MB", "png", png(SIDE, SIDE, rows(8), between=ENDLESS_PROFILE)
    yield "png with 500 texts and half its rows", "png", png(SIDE, SIDE, rows(8), between=LOUD_TEXT)
    yield "png without rows", "png", png(SIDE, SIDE, b"")
    yield "png with a palette", "png", saved("PNG", mode="P")
    yield "png with alpha", "png", saved("PNG", mode="RGBA")
    yield "png of 16 bits", "png", saved("PNG", mode="I;16")
    yield "png that is animated", "png", saved("PNG", 3)
    yield "png with a wrong checksum", "png", png(SIDE, SIDE, rows())[:40] + b"\0\0\0\0" + png(SIDE, SIDE, rows())[44:]
    yield "png of an unknown filter", "png", png(SIDE, SIDE, zlib.compress((b"\x99" + bytes(3 * SIDE)) * SIDE))
    yield "gif in png's clothes", "png", saved("GIF")
    yield "bmp in png's clothes", "png", saved("BMP")
    yield "tiff in png's clothes", "png", saved("TIFF")
    yield "jpeg called a png", "png", photo("jpeg")
    yield "eps called a png", "png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) run"
    yield "svg called a png", "png", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "pickle called a png", "png", b"cposix\nsystem\n(S'false'\ntR."
    yield "jpeg of 65,500 x 65,500", "jpeg", photo("jpeg").replace(b"\x08\0\x40\0\x40", b"\x08\xff\xdc\xff\xdc")
    yield "jpeg of CMYK", "jpeg", saved("JPEG", mode="CMYK")
    yield "jpeg without a picture", "jpeg", b"\xff\xd8\xff\xd9"
    yield "jpeg of markers only", "jpeg", b"\xff\xd8" + b"\xff\xe1\xff\xff" * 2000
    yield "mpo called a jpeg", "jpeg", saved("MPO", 2)
    yield "webp that is animated", "webp", saved("WEBP", 3, lossless=True)
    yield "webp of another size", "webp", photo("webp", side=63)
    yield "webp with alpha", "webp", saved("WEBP", mode="RGBA", lossless=True)
    yield (
        "webp of 16,383 x 16,383",
        "webp",
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 9) + b"\x2f\xfe\xbf\xff\x0f" + bytes(5),
    )
    for kind in images.KINDS:
        whole = photo(kind)
        for part in range(1, 8):
            yield f"{kind} cut off at {part}/8", kind, whole[: len(whole) * part // 8]
        for seed in range(8):
            yield f"{kind}, damaged, {seed}", kind, damaged(whole, seed)


def damaged(body: bytes, seed: int) -> bytes:
    """With its first half of bytes, where structure is, changed here and there, and the end gone."""
    rng = np.random.default_rng(seed)
    changed = bytearray(body[:-8])
    for place in rng.integers(0, len(changed) // 2, 40):
        changed[place] = rng.integers(0, 256)
    return bytes(changed)


# --- samples ---


def sample_of(body: bytes, **changes: object) -> bytes:
    """A frame whose header has the body's length and hash, so that nothing but the body is wrong."""
    header, _ = encode_sample(sample("bad", 1))
    said = {"body_bytes": len(body), "body_sha256": hashlib.sha256(body).hexdigest(), **changes}
    return encode_frame(msgspec.structs.replace(header, **said), body)


def bodies() -> Iterator[Nasty]:
    for name, kind, body in pictures():
        yield Nasty(name, "sample", sample_of(body, encoding=kind, shape=(SIDE, SIDE, 3)))
    good = encode_sample(sample("bad", 1))[1]
    yield Nasty("zlib bomb", "sample", sample_of(BOMB, encoding="zlib"))
    yield Nasty("zlib bomb in a zlib bomb", "sample", sample_of(zlib.compress(BOMB), encoding="zlib"))
    yield Nasty("zlib bomb as raw", "sample", sample_of(BOMB[:1000], encoding="raw"))
    for encoding in ("zstd", "delta-zstd"):
        yield Nasty(f"{encoding} bomb", "sample", sample_of(ZSTD_BOMB, encoding=encoding))
        yield Nasty(f"{encoding} of a wide window", "sample", sample_of(WIDE_WINDOW, encoding=encoding))
        yield Nasty(f"{encoding} that announces 2^63 bytes", "sample", sample_of(LYING_SIZE, encoding=encoding))
        yield Nasty(f"{encoding}, not ended", "sample", sample_of(ZSTD_BOMB[:40], encoding=encoding))
    yield Nasty("zip bomb", "sample", sample_of(b"PK\3\4" + BOMB, encoding="zlib"))
    yield Nasty("zlib, not ended", "sample", sample_of(zlib.compress(bytes(64))[:-6], encoding="zlib", shape=(8, 8)))
    yield Nasty("raw, one byte short", "sample", sample_of(bytes(63), encoding="raw", shape=(8, 8)))
    yield Nasty("raw, one byte over", "sample", sample_of(bytes(65), encoding="raw", shape=(8, 8)))
    for value in (np.nan, np.inf, -np.inf):
        for dtype in ("float16", "float32", "float64"):
            data = np.full((4, 4), value, dtype).tobytes()
            yield Nasty(f"{value} of {dtype}", "sample", sample_of(data, encoding="raw", shape=(4, 4), dtype=dtype))
    for size in range(0, len(good), 7):
        yield Nasty(f"frame cut off at {size}", "sample", frames("bad", 1)[0][:size])


def headers() -> Iterator[Nasty]:
    frame = frames("bad", 1)[0]
    size = 2 + int.from_bytes(frame[:2], "big")
    header, body = msgspec.msgpack.decode(frame[2:size]), frame[size:]
    changes: dict[str, dict[str, object]] = {
        "of another device": {"id": "good.main.1.1"},
        "id of a path": {"id": "../../etc/passwd.main.1.1"},
        "dtype of objects": {"dtype": "O"},
        "dtype of a record": {"dtype": "f8,f8"},
        "dtype that numpy would run": {"dtype": "(1,)" * 500},
        "dtype of the other byte order": {"dtype": ">f8"},
        "shape that overflows 64 bits": {"shape": [2**31, 2**31, 4]},
        "shape whose product overflows to the right size": {"shape": [2**32, 2**32, 36]},
        "shape of a negative square": {"shape": [-6, -6]},
        "shape of 0": {"shape": [0]},
        "shape of a float": {"shape": [6.5, 6]},
        "shape of 10,000 axes": {"shape": [1] * 10_000},
        "shape of 2^70": {"shape": [2**63, 2**63 - 1]},
        "encoding of pickle": {"encoding": "pickle"},
        "encoding of gif": {"encoding": "gif"},
        "length below 0": {"body_bytes": -1},
        "length of 2^63": {"body_bytes": 2**63 - 1},
        "part below 0": {"part": -1},
        "parts of 2^62": {"parts": 2**62},
        "confidence not finite": {"confidence": float("nan")},
        "label of 2^63": {"label": 2**63 - 1},
        "time of 2^63": {"captured_at_ms": 2**63},
    }
    for name, change in changes.items():
        yield Nasty(name, "sample", encode_frame(header | change, body))
    for key in ("probability", "floor", "utility", "novelty", "threshold", "tokens", "shadow_probability"):
        for value in (float("nan"), float("inf"), -float("inf")):
            changed = header | {"selection": header["selection"] | {key: value}}
            yield Nasty(f"{key} of {value}", "sample", encode_frame(changed, body))
    yield Nasty("msgpack nested 10,000 deep", "sample", framed(b"\x91" * 10_000 + b"\xc0", body))
    yield Nasty("msgpack map of 2^32 - 1", "sample", framed(b"\xdf\xff\xff\xff\xff", body))
    yield Nasty("msgpack array of 2^32 - 1 in shape", "sample", framed(b"\x81\xa5shape\xdd\xff\xff\xff\xff", body))
    yield Nasty("msgpack string of 4 GB", "sample", framed(b"\x81\xa2id\xdb\xff\xff\xff\xff", body))
    yield Nasty("msgpack of 4,000 keys", "sample", framed(b"\xde\x0f\xa0" + b"\xa1k\xc0" * 4000, body))
    yield Nasty("msgpack of an extension", "sample", framed(b"\xc7\x04\x01\0\0\0\0", body))
    yield Nasty("msgpack, its string not UTF-8", "sample", framed(b"\x81\xa2id\xa2\xff\xfe", body))
    yield Nasty("header longer than the frame", "sample", b"\xff\xff" + bytes(100))
    yield Nasty("header of nothing", "sample", b"\0\0")


def framed(head: bytes, body: bytes) -> bytes:
    return len(head).to_bytes(2, "big") + head + body


def words() -> Iterator[Nasty]:
    beat, born = encode(heartbeat("s")), encode(birth("s"))
    yield Nasty("JSON nested 10,000 deep", "heartbeat", b"[" * 10_000 + b"]" * 10_000)
    yield Nasty(
        "JSON nested in an unknown field", "birth", born[:-1] + b',"x":' + b'{"x":' * 10_000 + b"1" + b"}" * 10_001
    )
    yield Nasty(
        "JSON of 20,000 keys and none needed", "birth", b"{" + b",".join(b'"k%d":0' % n for n in range(5000)) + b"}"
    )
    yield Nasty("JSON too large", "event", b'{"text":"' + b"x" * JSON_MAX_BYTES + b'"}')
    yield Nasty("JSON not UTF-8", "birth", born.replace(b'"s"', b'"\xff\xfe"'))
    yield Nasty("JSON of half a surrogate", "birth", born.replace(b'"s"', b'"\\ud800"'))
    yield Nasty("JSON in UTF-16", "birth", born.decode().encode("utf-16"))
    yield Nasty("JSON of NaN", "heartbeat", beat.replace(b'"uptime_s":5.0', b'"uptime_s":NaN'))
    yield Nasty("JSON of 1e999", "heartbeat", beat.replace(b'"uptime_s":5.0', b'"uptime_s":1e999'))
    yield Nasty("JSON of a number of 10,000 digits", "birth", born.replace(b'"boot":1', b'"boot":' + b"9" * 10_000))
    yield Nasty("JSON of true for a number", "birth", born.replace(b'"boot":1', b'"boot":true'))
    yield Nasty("JSON with the last of two keys wrong", "birth", born[:-1] + b',"boot":-5}')
    yield Nasty("JSON and more behind it", "birth", born + b"{}")
    yield Nasty("counts below 0", "heartbeat", beat.replace(b'"read":10', b'"read":-10'))
    for cut in range(0, len(beat) - 1, 97):
        yield Nasty(f"heartbeat cut off at {cut}", "heartbeat", beat[:cut])


def everything() -> list[Nasty]:
    found = [*bodies(), *headers(), *words()]
    assert len({nasty.name for nasty in found}) == len(found)
    return found
