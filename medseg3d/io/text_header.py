"""Headers of text, as NRRD and MetaImage have them.

Messages of errors go on after the name of the file, which the caller puts before them.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Final, TypeVar

from medseg3d.errors import FormatError

LONGEST: Final = 2**20
"""Bytes that a header has at most."""

LONGEST_QUOTE: Final = 40
"""Letters of a header that a message repeats."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class TextHeader:
    """Fields in lower case, and the byte after them."""

    fields: dict[str, str]
    length: int

    def text(self, *names: str, default: str | None = None) -> str:
        """Give the one field of several names.

        Raises:
            FormatError: it is missing and has no default.
        """
        for name in names:
            if name in self.fields:
                return self.fields[name]
        if default is None:
            raise FormatError(f"is damaged: its header has no '{names[0]}'")
        return default

    def choice(self, *names: str, known: Collection[str], default: str | None = None) -> str:
        """Give a field, in lower case, that must be one of the known.

        Raises:
            FormatError: it is missing, or something else.
        """
        value = self.text(*names, default=default).lower()
        if value not in known:
            raise FormatError(
                f"says {names[0]} {quoted(value)}; known are {', '.join(known)}. Convert it first."
            )
        return value

    def integer(
        self, name: str, *, least: int, most: int | None = None, default: int | None = None
    ) -> int:
        """Give a field's one number.

        Raises:
            FormatError: it is none, or out of bounds.
        """
        text = self.text(name, default=None if default is None else str(default))
        value, *more = parse_numbers(text, name, int) or [least - 1]
        if more or value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"{least} to {most}"
            raise FormatError(f"says {name} {quoted(text)}, expected {bounds}. Convert it first.")
        return value

    def numbers(
        self, *names: str, kind: Callable[[str], Number], default: str | None = None
    ) -> list[Number]:
        """Give a field's numbers.

        Raises:
            FormatError: it is missing, or holds something else.
        """
        return parse_numbers(self.text(*names, default=default), names[0], kind)


def read_text_header(
    stream: BufferedIOBase, *, split: Callable[[str], tuple[str, str] | None], last: str = ""
) -> TextHeader:
    """Read fields up to the one named `last`, else to an empty line or the end of the file.

    `split` gives the name and value that a line holds, or None where it has nothing to say.

    Raises:
        FormatError: the header is longer than `LONGEST`, a line is no field, or a field is doubled.
    """
    fields: dict[str, str] = {}
    length = 0
    while line := stream.readline(LONGEST - length + 1):
        length += len(line)
        if length > LONGEST:
            raise FormatError(f"is damaged: its header has no end within {LONGEST} bytes")
        text = line.decode("latin-1").strip()
        if not text and not last:
            break
        field = split(text)
        if field is None:
            continue
        name, value = field[0].strip().lower(), field[1].strip()
        if name in fields:
            raise FormatError(f"is damaged: its header says {quoted(name)} twice")
        fields[name] = value
        if name == last:
            break
    return TextHeader(fields, length)


def parse_numbers(text: str, name: str, kind: Callable[[str], Number]) -> list[Number]:
    """Turn words into numbers.

    Raises:
        FormatError: a word is none.
    """
    try:
        return [kind(word) for word in text.split()]
    except ValueError:
        raise FormatError(
            f"is damaged: its header says {name} {quoted(text)}, expected numbers"
        ) from None


def quoted(text: str) -> str:
    """Repeat a header's words in a message, not too many of them."""
    return repr(text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "…")
