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
from headwise.data.layout import arrange, is_image
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
        with open(self.path, "rb", buffering=0) as file:
            # The local header ends with the name and an extra field, both of variable length.
            header = os.pread(file.fileno(), LOCAL_HEADER_BYTES, member.offset)
            if len(header) < LOCAL_HEADER_BYTES:
                raise OSError("the zip file is truncated")
            start = member.offset + LOCAL_HEADER_BYTES + sum(struct.unpack_from("<HH", header, 26))
            data = os.pread(file.fileno(), member.packed_bytes, start)
        if member.deflated:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.bytes + 1)
            except zlib.error as error:
                raise OSError(f"damaged in the zip file: {error}") from error
        if len(data) != member.bytes or zlib.crc32(data) != member.crc:
            raise OSError("damaged in the zip file: the size or the checksum differs")
        return io.BytesIO(data)


def list_zip(path: Path) -> Splits:
    """Return the images in the zip file at `path`, split and labelled by folder."""
    try:
        with zipfile.ZipFile(path) as file:
            infos = [i for i in file.infolist() if not i.is_dir() and is_image(i.filename)]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} must be a zip file: {error}") from error
    members = {info.filename: _member(info, path) for info in infos}
    status = path.stat()
    content = ascii(sorted((name, m.bytes, m.crc) for name, m in members.items())).encode()
    stamp = ascii((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode()
    source = ZipSource(path, members, fingerprint(content), fingerprint(stamp))
    return arrange(source, sorted(members), str(path))


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
