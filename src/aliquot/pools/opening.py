"""Open a text file, detecting its compression from its first bytes; a file that is not text is named in an error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from aliquot.runtime.wording import counted

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_BUFFER = 1 << 20
_HEAD = 1 << 16
#: The first bytes of a compressed file, by the usual ending of its compression.
_COMPRESSED = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
}
_UNPACK = "unpack it and name the files inside"
_SHEET = "save the sheet as csv (UTF-8), which pool=csv reads"
_UTF8 = "save it as UTF-8"
#: The first bytes of files that cannot be read as text, what they are, and what to do.
_NAMED = {
    b"PAR1": ("a parquet file", "end its name in .parquet, which pool=parquet reads"),
    b"ARROW1": ("an Arrow file", "write it as parquet"),
    b"version https://git-lfs": ("a pointer of git-lfs, not the data itself", "run `git lfs pull` in its repository"),
    b"\xff\xfe": ("UTF-16 text", _UTF8),
    b"\xfe\xff": ("UTF-16 text", _UTF8),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet of old Excel (.xls), or another Office file", _SHEET),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "unpack it with `unlz4`"),
    b"\x1f\x9d": ("compressed with compress", "unpack it with `uncompress`"),
    b"SQLite format 3": ("an SQLite database", "export the table as csv"),
    b"%PDF": ("a PDF", "give its prompts as csv or jsonl"),
}


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text file, decompressed; a byte order mark at the beginning is skipped.

    Lines may end in a carriage return alone, as on old Macs.

    Raises:
        ValueError: the file is cut off or damaged, or is not text, or a line is not UTF-8.
    """
    number = 0
    try:
        with _open_binary(file) as source:
            head = source.peek(_HEAD)[:_HEAD]
            refuse_named(head, file)
            lines = _carriage_returns(source) if b"\r" in head[:-1] and b"\n" not in head else source
            for number, line in enumerate(lines, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}:{number}: the line is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system, not from the decompressor
            raise
        raise ValueError(
            f"{file} is damaged or cut off after line {number} ({error}); compress or download it again"
        ) from error


def first_bytes(file: Path) -> bytes:
    """Return the beginning of a file as stored on disk."""
    with open(file, "rb") as opened:
        return opened.read(512)


def refuse_named(head: bytes, file: Path) -> None:
    """Raise ValueError if the first bytes of a file show that it does not hold lines of text.

    Args:
        head: the first bytes, decompressed.
        file: the file that they are from.
    """
    found = next((named for start, named in _NAMED.items() if head.startswith(start)), None)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        found = _zip(file)
    elif head[257:262] == b"ustar":
        found = ("a tar archive", _UNPACK)
    elif any(map(head.startswith, _COMPRESSED)):
        found = ("compressed more often than its reader unpacks", "unpack it once")
    elif head[:4:2] == b"\0\0" or head[1:4:2] == b"\0\0":
        found = ("UTF-16 text, or not text", _UTF8)
    elif head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        found = ("a web page", "download the file itself, not the page that shows it")
    if found:
        raise ValueError(f"{file} is {found[0]}; {found[1]}")


def _zip(file: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError):
        return "a zip archive", _UNPACK
    if "xl/workbook.xml" in names or "content.xml" in names:
        return "a spreadsheet (.xlsx or .ods)", _SHEET
    return f"a zip archive of {counted(len(names), 'file')} ({', '.join(names[:3])})", _UNPACK


def _open_binary(file: Path) -> io.BufferedReader:
    """Open a file, decompressing it as its first bytes or else its name indicate."""
    head = first_bytes(file)
    told = next((ending for start, ending in _COMPRESSED.items() if head.startswith(start)), None)
    kind = told or file.suffix.lower()
    if kind == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(file), compression="zstd"), _BUFFER)
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opened = openers[kind](file, "rb") if kind in openers else open(file, "rb", buffering=0)  # noqa: SIM115
    return io.BufferedReader(cast(io.RawIOBase, opened), _BUFFER)


def _carriage_returns(source: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file whose lines end in a carriage return, with a line feed instead."""
    rest = b""
    while block := source.read(_BUFFER):
        *lines, rest = (rest + block).split(b"\r")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest
