"""A new file, there as a whole or not at all, and never in place of another."""

from __future__ import annotations

import errno
import os

from keyfob import files
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

ANSWERS = {
    errno.EEXIST: CKR.FUNCTION_FAILED,
    errno.ENOSPC: CKR.DEVICE_MEMORY,
    errno.EDQUOT: CKR.DEVICE_MEMORY,
    errno.EROFS: CKR.TOKEN_WRITE_PROTECTED,
    errno.EACCES: CKR.TOKEN_WRITE_PROTECTED,
    errno.EPERM: CKR.TOKEN_WRITE_PROTECTED,
}
ENDING = ".new"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # link(2): EPERM is the usual answer


def publish(content: bytes, path: str) -> None:
    """Write beside the path under a name that nobody looks for, make it durable, and give it its name; OSError.

    FileExistsError when there is such a file, also when another process made it in this moment. The descriptor is
    closed before the name exists: closing it later would drop the locks of whoever in this process has opened the file.
    """
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(6).hex()}{ENDING}")
    descriptor = files.new(temporary)
    try:
        try:
            files.write_durably(descriptor, content)
        finally:
            os.close(descriptor)
        give_name(temporary, path)
    finally:
        _remove(temporary)
    try:
        sync_folder(folder)
    except OSError as problem:
        take_back(path, problem.strerror or "")
        raise


def give_name(finished: str, path: str) -> None:
    """A finished file of the same folder's file system gets its name, never in place of another; OSError.

    On a stick, whose FAT knows no links, an empty file takes the name first: there is a moment when that is seen.
    """
    try:
        os.link(finished, path)
    except OSError as problem:
        if problem.errno not in NO_LINKS:
            raise
    else:
        return
    os.close(files.new(path))
    os.rename(finished, path)


def take_back(path: str, reason: str) -> None:
    """Remove a file that nobody was told of; CKR_FUNCTION_FAILED where that cannot be done either."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as problem:
        text = f"{path} was made, for all that is known, and cannot be removed ({problem.strerror}): {reason}"
        raise PKCS11Error(CKR.FUNCTION_FAILED, text) from None


def _remove(temporary: str) -> None:
    try:
        os.unlink(temporary)
    except OSError:  # it was renamed; or `sweep` removes it some day
        return


def sweep(folder: str) -> None:
    """Remove what killed processes left of files that they were about to publish; best effort.

    Such a file can be a second name of a token that is in use: without it a token that is removed would not be gone.
    """
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".") and name.endswith(ENDING)]
    except OSError:
        return
    for name in names:
        process = name.removesuffix(ENDING).rpartition(".")[2].partition("-")[0]
        if process.isascii() and process.isdigit() and not _lives(int(process)):
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                return


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def answer(problem: OSError, path: str) -> PKCS11Error:
    """What to say when publishing failed."""
    rv = ANSWERS.get(problem.errno or 0, CKR.DEVICE_ERROR)
    return PKCS11Error(rv, f"{path} cannot be made: {problem.strerror}")


def sync_folder(folder: str) -> None:
    """Make names that came or went durable; OSError."""
    descriptor = files.folder(folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
