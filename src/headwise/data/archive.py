"""Image files in a `.zip`, read without unpacking it."""

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from headwise.data.images import Splits, fingerprint
from headwise.data.layout import arrange, is_image, why_not
from headwise.data.reading import check_expansion, one_line, unreadable
from headwise.errors import UserError

LOCAL_HEADER_BYTES = 30  # before a member's name (APPNOTE.TXT 4.3.7)
ENCRYPTED = 1  # general purpose bit 0 (APPNOTE.TXT 4.4.4)


class Member(NamedTuple):
    """Where a file lies in the zip file."""

    offset: int
    packed_bytes: int
    bytes: int
    deflated: bool
    crc: int


@dataclass(frozen=True)
class ZipSource:
    """Every read opens the zip file, reads at an offset, and closes it. This costs microseconds,
    and there is no open handle to share between threads, forks and pickles."""

    path: Path
    members: dict[str, Member]
    content: str
    stamp: str

    def open(self, id: str) -> io.BufferedIOBase:
        member = self.members[id]
        with unreadable(), open(self.path, "rb", buffering=0) as file:
            check_expansion(member.packed_bytes, member.bytes)
            # The local header ends with the name and an extra field, both of variable length.
            header = os.pread(file.fileno(), LOCAL_HEADER_BYTES, member.offset)
            if len(header) < LOCAL_HEADER_BYTES:
                raise OSError("the zip file is truncated")
            start = member.offset + LOCAL_HEADER_BYTES + sum(struct.unpack_from("<HH", header, 26))
            if start + member.packed_bytes > os.fstat(file.fileno()).st_size:
                raise OSError("the zip file is truncated")
            data = os.pread(file.fileno(), member.packed_bytes, start)
            if member.deflated:
                data = _inflated(data, member.bytes)
            if len(data) != member.bytes or zlib.crc32(data) != member.crc:
                raise OSError("damaged in the zip file: the size or the checksum differs")
            return io.BytesIO(data)


def list_zip(path: Path) -> Splits:
    """Return the images in the zip file at `path`, split and labelled by folder."""
    with one_line(f"{path} must be a zip file"), zipfile.ZipFile(path) as file:
        infos = {name: i for i in file.infolist() if not (name := _name(i)).endswith("/")}
    images = {name for name in infos if is_image(name)}
    members = {name: _member(infos[name], path) for name in infos if name in images}
    status = path.stat()
    content = ascii(sorted((name, m.bytes, m.crc) for name, m in members.items())).encode()
    stamp = ascii((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode()
    source = ZipSource(path, members, fingerprint(content), fingerprint(stamp))
    left_out = [(name, why_not(name)) for name in sorted(infos) if name not in images]
    return arrange(source, sorted(members), str(path), left_out)


def _name(info: zipfile.ZipInfo) -> str:
    """Return the member's path with `/`. Some old tools for Windows wrote `\\`."""
    return info.filename if "/" in info.filename else info.filename.replace("\\", "/")


def _inflated(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise OSError(f"damaged in the zip file: {error}") from error


def _member(info: zipfile.ZipInfo, path: Path) -> Member:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{path} must hold files that are stored or deflated; {info.filename!r} is neither: "
            "zip the folder again"
        )
    if info.flag_bits & ENCRYPTED:
        raise UserError(f"{path} must not be encrypted; {info.filename!r} is: unzip it first")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return Member(info.header_offset, info.compress_size, info.file_size, deflated, info.CRC)
