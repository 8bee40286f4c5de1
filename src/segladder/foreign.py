"""What others wrote, made safe to use: names stay below a folder, text drives no terminal, links lead nowhere else."""

from __future__ import annotations

import errno
import json
import os
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, TypeGuard

import orjson

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # not tab, line feed
HALF_A_LETTER = re.compile("[\ud800-\udfff]")  # JSON can spell it, no file can hold it

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # names that lead nowhere on any system
NO_ARCHIVE = (  # what reading a damaged or foreign .npz raises, and taking arrays and JSON out of it
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError, RuntimeError),
    *(ValueError, KeyError, IndexError, TypeError, OverflowError),
)
ESCAPES = (b"\\u", b"\\b", b"\\f", b"\\r")  # how ASCII JSON spells control characters


def content(path: Path) -> bytes:
    """The bytes of a file. Raises OSError for what is none: reading a pipe would wait for ever."""
    if not path.is_file() and path.exists():
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path.read_bytes()


def text(path: Path) -> str:
    """The text of a file in UTF-8, without the mark that some editors put first. Raises OSError, UnicodeDecodeError."""
    return content(path).decode("utf-8-sig").replace("\r\n", "\n")


def stays_inside(name: str) -> bool:
    """Whether a name, joined to a folder on whatever system, lies below that folder and is one line of plain text."""
    if PLAIN.fullmatch(name):
        return True
    path = PureWindowsPath(name)  # knows drives and both separators
    return bool(path.parts) and not path.anchor and ".." not in path.parts and printable(name).splitlines() == [name]


def printable(text: str) -> str:
    """A text whose control characters are spelled out, such as \\x1b, so that it cannot drive a terminal."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def composed(text: str) -> str:
    """A text in Unicode's composed form (NFC): some systems write the accent apart from its letter."""
    return unicodedata.normalize("NFC", text)


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value of JSON is a text that is not blank and that can be written to a file."""
    return isinstance(value, str) and bool(value.strip()) and not HALF_A_LETTER.search(value)


def json_values(text: bytes) -> Any:
    """The value of a JSON text, with every text in it `printable`. Raises ValueError, RecursionError.

    Numbers are finite: NaN, infinities and what is too large for a float are null.
    """
    try:
        value = orjson.loads(text)
    except ValueError:  # knows other encodings, and says where text ends too early
        value = json.loads(text, parse_constant=lambda name: None, parse_float=_finite, parse_int=_finite)
    plain = text.isascii() and b"\x7f" not in text and b"\0" not in text  # NULs: of other encodings
    if plain and not (b"\\" in text and any(escape in text for escape in ESCAPES)):
        return value  # a walk over all values takes longer than parsing them
    return printable_values(value)


def _finite(number: str) -> int | float | None:
    """A number of JSON as an int that 64 bits hold, or as a float; None where that is infinite."""
    if len(number) <= 20 and number.lstrip("-").isdigit() and -(1 << 63) <= int(number) < 1 << 64:
        return int(number)
    value = float(number)
    return value if abs(value) < float("inf") else None


def printable_values(value: Any) -> Any:
    """A value of JSON with every text in it `printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_values(key): printable_values(item) for key, item in value.items()}
    return [printable_values(item) for item in value] if isinstance(value, list) else value


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder that match, ordered; what is a link to elsewhere is left out."""
    inside = folder.resolve()
    return sorted(path for path in folder.glob(pattern) if path.is_file() and path.resolve().is_relative_to(inside))


def links_elsewhere(folder: Path) -> list[Path]:
    """Links below a folder that lead to folders outside it, where whoever writes into it would write."""
    inside = folder.resolve()
    below = (Path(at, name) for at, names, _ in os.walk(folder) for name in names)
    return sorted(path for path in below if not path.resolve().is_relative_to(inside))
