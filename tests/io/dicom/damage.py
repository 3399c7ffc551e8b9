"""Damage to DICOM files, drawn by chance: bits, lengths, values, whole attributes."""

import logging
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from saying what it thinks of damage while the test itself uses it."""
    logger = logging.getLogger("pydicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = False


@dataclass(frozen=True)
class Element:
    """Where an attribute lies in a file: tag, length, value."""

    start: int
    length_at: int
    length_size: int
    value: int
    end: int
    vr: str


TEXTS = [
    b"", b"0", b"-1", b"1", b"2", b"nan", b"inf", b"-inf", b"1e400", b"1e-300", b"99999999999",
    b"x", b"1\\2", b"1\\2\\3", b"1\\2\\3\\4\\5\\6\\7", b"\\\\\\", b"\xff\xfe", b" ", b"1.0 ",
    b"2,5", b"0\\0", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\0\\1\\0.001", b"1\\0\\0\\0\\0.98\\0.2",
    b"1\\0\\0\\1\\0\\0", b"1e9\\1\\1", b"ORIGINAL\\PRIMARY\\MOSAIC",
    b"ORIGINAL\\PRIMARY\\LOCALIZER", b"DERIVED", b"MONOCHROME1", b"RGB", b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.1.99", b"\x1b$B", b"ISO 2022 IR 87",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 15, 16, 17, 32, 64, 255, 4096, 32767, 65534, 65535]
LENGTHS = [0, 1, 2, 3, 7, 13, 255, 4096, 65534, 65535, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]


@dataclass(frozen=True)
class Victim:
    """A sound file, and its attributes on the uppermost level."""

    path: Path
    content: bytes
    """As written; unpacked from `begin` on where that is not 0."""
    elements: list[Element]
    begin: int

    def write(self, content: bytes) -> None:
        """Store a content as this file stores its own."""
        if 0 < self.begin < len(content):
            packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            body = packer.compress(content[self.begin :]) + packer.flush()
            content = content[: self.begin] + body
        self.path.write_bytes(content)


def victim(path: Path) -> Victim:
    """Look where the attributes of a file lie."""
    content, begin = path.read_bytes(), 0
    with quiet():
        dataset = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        begin = 144 + struct.unpack_from("<I", content, 140)[0]
        content = content[:begin] + zlib.decompress(content[begin:], -zlib.MAX_WBITS)
    found = []
    for raw in [*dataset.file_meta._dict.values(), *dataset._dict.values()]:
        if getattr(raw, "value_tell", None) is None:
            continue
        value = raw.value_tell + (begin if raw.tag.group > 2 else 0)
        implicit = raw.is_implicit_VR
        long = implicit or raw.VR in ("OB", "OW", "SQ", "UN", "UT", "OF", "OD")
        size, head = 4 if long else 2, 8 if implicit or not long else 12
        end = value + (raw.length if raw.length < 2**32 - 1 else 0)
        found.append(Element(value - head, value - size, size, value, end, raw.VR or ""))
    return Victim(path, content, found, begin)


def damaged(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    """Damage a file in one way drawn by chance."""
    ways = [flip, flip, cut, overwrite, overwrite, overwrite, length, drop, repeat, nest, shift]
    return rng.choice(ways)(data, elements, rng)


def flip(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def shift(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice([1, 2, 8, 100])
    return data[:at] + rng.choice([rng.randbytes(count), b"\0" * count]) + data[at:]


def overwrite(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    if element.vr in ("US", "SS", "UL"):
        value = (
            rng.choice(NUMBERS).to_bytes(2, "little").ljust(4 if element.vr == "UL" else 2, b"\0")
        )
    elif element.vr in ("OB", "OW", "SQ", "UN"):
        value = rng.randbytes(rng.choice([0, 2, 8, 40, 60]))
    else:
        value = rng.choice(TEXTS)
        value += b" " * (len(value) % 2)
    size = len(value).to_bytes(element.length_size, "little")
    return data[: element.length_at] + size + value + data[element.end :]


def length(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    number = rng.choice(LENGTHS) % 2 ** (8 * element.length_size)
    size = number.to_bytes(element.length_size, "little")
    return data[: element.length_at] + size + data[element.value :]


def drop(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    element = rng.choice(elements)
    return data[: element.start] + data[element.end :]


def repeat(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    element, other = rng.choice(elements), rng.choice(elements)
    return data[: other.start] + data[element.start : element.end] + data[other.start :]


def nest(data: bytes, elements: list[Element], rng: random.Random) -> bytes:
    at = rng.choice(elements).start
    tag = rng.choice([(0x0008, 0x1140), (0x0018, 0x9346), (0x5200, 0x9229), (0x0009, 0x1001)])
    level = struct.pack("<HH2s2xI", *tag, b"SQ", 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return data[:at] + level * rng.choice([1, 3, 50, 2000]) + data[at:]


def damage(victims: list[Victim], seed: int) -> list[Victim]:
    """Damage one file, or all in the same way; give which."""
    rng = random.Random(seed)
    hit = victims if rng.random() < 0.3 else [rng.choice(victims)]
    way = rng.random()
    for one in hit:
        one.write(damaged(one.content, one.elements, random.Random(way)))
    return hit
