"""Tar archives for tests, in memory."""

import io
import tarfile


def tar(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT, **kinds: bytes) -> bytes:
    """The members, then one link, device or pipe of each kind."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as written:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            written.addfile(info, io.BytesIO(data))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            written.addfile(info)
    return stream.getvalue()
