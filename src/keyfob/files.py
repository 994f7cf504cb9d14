"""How keyfob opens, makes and closes its files and folders. Nothing else does (tests/test_owners.py).

What lies in a file system may have been put there by somebody else. So

    a file that is written is never reached through a symbolic link, and has no other name (hard link);
    a file that is read as a secret, or as an order, is a regular one of the user's or root's; a FIFO holds nobody up;
    a folder is made 0700 with all its parents, whatever the umask;
    modes are changed of what keyfob makes, through a descriptor, and never of what a path happens to lead to;
    a folder that others can write is not believed, nor is one that a stranger's symbolic link leads to. The folders
    above it do not count: whoever puts another one in its place makes one of his own, and is known by that.

A descriptor that refers to a file without opening it (O_PATH) drops none of SQLite's locks when it is closed.

What is refused is an OSError whose `strerror` says why.
"""

from __future__ import annotations

import os
from errno import EINVAL, ELOOP, EPERM
from stat import S_IMODE, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISLNK, S_ISREG, S_ISVTX

from keyfob import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SECRET, PUBLIC = 0o600, 0o644  # modes of files
OF_USER, OF_ALL = 0o700, 0o755  # and of folders
OTHERS = 0o077
OTHERS_WRITE, GROUP_WRITES = 0o002, 0o020
ORDERS = 1 << 20  # bytes; of a file that says what to do
QUIET = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
PLAIN = QUIET | os.O_NOFOLLOW


def _open(path: str, how: int, mode: int = SECRET) -> int:
    try:
        return os.open(path, how, mode)
    except OSError as problem:
        if problem.errno != ELOOP:
            raise
        raise OSError(ELOOP, "it is a symbolic link", path) from None


# Reading


def read(path: str, most: int, *, follow: bool = False) -> tuple[bytes, os.stat_result]:
    """What is in a regular file, `most` + 1 bytes at most, and what the file system says of it.

    `follow`: also through a symbolic link: where people say themselves where the file is.
    """
    descriptor = _open(path, os.O_RDONLY | (QUIET if follow else PLAIN))
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise OSError(EINVAL, "it is no file", path)
        parts, left = [], most + 1
        while left > 0 and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts), status
    finally:
        os.close(descriptor)


def reading(path: str) -> int:
    """A descriptor for a file that is read."""
    return _open(path, os.O_RDONLY | PLAIN)


def require_plain(path: str, *, alone: bool = False) -> None:
    """OSError unless a path leads to a regular file, and not through a symbolic link at its end.

    `alone`: it must be the file's only name.
    """
    status = os.lstat(path)
    mode = status.st_mode
    if S_ISLNK(mode):
        raise OSError(ELOOP, "it is a symbolic link", path)
    if not S_ISREG(mode):
        raise OSError(EINVAL, "it is no file", path)
    if alone and status.st_nlink > 1:
        raise OSError(EPERM, "it has another name as well", path)


def read_believed(path: str, most: int = ORDERS, *, follow: bool = False) -> bytes:
    """The same of a file that others cannot have written."""
    content, status = read(path, most, follow=follow)
    if doubted := stranger(status) or writers(status):
        raise OSError(EPERM, f"it {doubted}", path)
    if len(content) > most:
        raise OSError(EINVAL, f"it has more than {most} bytes", path)
    return content


def read_kept(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """The same of a file that `keep` makes: neither it nor its folder may be others' to write."""
    folder, strangers = os.path.dirname(path), not is_master()
    if doubted := doubt(folder, strangers=strangers):
        raise OSError(EPERM, doubted, folder)
    content, status = read(path, most)
    if doubted := writers(status) or (stranger(status) if strangers else ""):
        raise OSError(EPERM, f"it {doubted}", path)
    return content, status


# Writing


class Writer:
    """Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which ends a program that does not expect it.

    The C ABI's (abi/descriptors.py) holds it back. In the `keyfob` command Python ignores it by itself.
    """

    __slots__ = ()

    def write(self, descriptor: int, content: bytes | memoryview, place: int | None) -> int:
        return os.write(descriptor, content) if place is None else os.pwrite(descriptor, content, place)

    def reserve(self, descriptor: int, size: int) -> None:
        os.posix_fallocate(descriptor, 0, size)


_writer = Writer()


def write_by(writer: Writer) -> None:
    """The C ABI is in between from now on."""
    global _writer  # one for each process
    _writer = writer


def write(descriptor: int, content: bytes | memoryview) -> int:
    """How much was written; OSError."""
    return _writer.write(descriptor, content, None)


def write_at(descriptor: int, content: bytes, place: int) -> int:
    """The same at a place in the file."""
    return _writer.write(descriptor, content, place)


def reserve(descriptor: int, size: int) -> None:
    """Room for a file of that size; OSError."""
    _writer.reserve(descriptor, size)


def append(path: str) -> int:
    """A descriptor for lines at the end of a file, 0600 if it is made."""
    return _checked(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def keep(path: str) -> int:
    """A descriptor for a file that is read, believed and written again; it is made, and its folder, if need be."""
    folder = os.path.dirname(path)
    if doubted := doubt(folder, strangers=not is_master()):
        raise OSError(EPERM, doubted, folder)
    try:
        return _checked(path, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        make_folder(folder)
        return _checked(path, os.O_RDWR | os.O_CREAT)


def new(path: str, mode: int = SECRET) -> int:
    """A descriptor for a file that was not there: FileExistsError."""
    return _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN, mode)


def stream(path: str) -> int:
    """A descriptor for what is no file and is written to as it is: a pipe, a terminal, /dev/null; OSError."""
    mode = os.stat(path).st_mode
    if not S_ISFIFO(mode) and not S_ISCHR(mode):
        raise OSError(EINVAL, "it is no file", path)
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW)


def name_for(serial: str) -> str:
    """The name of a file about the token of this serial number, whatever that is made of."""
    return serial if serial.isascii() and serial.isalnum() else "-" + serial.encode().hex()


def write_durably(descriptor: int, content: bytes) -> None:
    """All of it, and on the disk when this returns; OSError."""
    view = memoryview(content)
    while view:
        view = view[write(descriptor, view) :]
    os.fsync(descriptor)


def replace(path: str, content: bytes, mode: int = SECRET, *, exactly: bool = True) -> None:
    """A file as a whole, durable, in place of one that may be there; OSError. `exactly`: whatever the umask is.

    Where people say which file: cli/files.py.
    """
    finished = part(path)
    descriptor = new(finished, mode)
    try:
        try:
            if exactly:
                os.fchmod(descriptor, mode)
            write_durably(descriptor, content)
        finally:
            os.close(descriptor)
        os.replace(finished, path)
    except BaseException:
        os.unlink(finished)
        raise


def part(path: str) -> str:
    """Another name in its folder, for what takes its place; OSError where that is a link, a device or a folder."""
    if os.path.lexists(path):
        require_plain(path)
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.part")


def _checked(path: str, how: int) -> int:
    """Of a file that may have been there: it is written to if it is a file, has one name, and no caller chose it."""
    secure = environment.is_secure()
    problem = stranger(os.stat(os.path.dirname(os.path.abspath(path))), root=False) if secure else ""
    if problem:
        raise OSError(EPERM, f"its folder {problem}", path)
    descriptor = _open(path, how | PLAIN)
    status = os.fstat(descriptor)
    if not S_ISREG(status.st_mode):
        problem = "is no file"
    elif status.st_nlink > 1:
        problem = "has another name as well"
    elif secure:
        problem = stranger(status)
    if problem:
        os.close(descriptor)
        raise OSError(EPERM, f"it {problem}", path)
    return descriptor


def cut(path: str, size: int) -> None:
    """Cut off what a file has beyond that size; OSError. It opens nothing, so no lock on the file is dropped."""
    os.truncate(path, size)


def sync(path: str) -> None:
    """What another descriptor wrote becomes durable; OSError. Never of a token that is in use: see store/watch.py."""
    descriptor = reading(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Folders


def folder(path: str) -> int:
    """A descriptor for a folder itself, to lock it or to make its names durable."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def make_folder(path: str, mode: int = OF_USER) -> None:
    """A folder and those above it, each that is made with this mode whatever the umask is; OSError."""
    path = os.path.abspath(path)
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        try:
            os.mkdir(each, mode)
        except FileExistsError:
            if not os.path.isdir(each):
                raise
            continue  # another process made it in this moment
        descriptor = os.open(each, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if S_IMODE(os.fstat(descriptor).st_mode) & 0o777 != mode:
                _change_mode(descriptor, mode)
        finally:
            os.close(descriptor)


def _change_mode(descriptor: int, mode: int) -> None:
    """Of a file or folder that a descriptor stands for, also one that did not open it."""
    os.chmod(f"/proc/self/fd/{descriptor}", mode)


# Modes


def close_to_others(path: str, tell: Callable[[str], None]) -> None:
    """Take away what others may do with a file or folder of keyfob's making; a line where that was so, or stays so."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        mode = S_IMODE(status.st_mode)
        if not mode & OTHERS or S_ISLNK(status.st_mode):
            return
        text = f"{path} was open to other users of this machine (mode {mode:04o})"
        if reason := _not_made_here(status):
            tell(f"{text} and is left so: {reason}")
            return
        try:
            _change_mode(descriptor, mode & ~OTHERS)
        except OSError as problem:
            tell(f"{text} and cannot be closed to them: {problem.strerror}")
            return
        closed = not os.fstat(descriptor).st_mode & OTHERS
        tell(
            f"{text}: it is {mode & ~OTHERS:04o} now"
            if closed
            else f"{text} and stays so: its file system knows no modes"
        )
    finally:
        os.close(descriptor)


def _not_made_here(status: os.stat_result) -> str:
    """Why something cannot be of keyfob's making."""
    if not S_ISREG(status.st_mode) and not S_ISDIR(status.st_mode):
        return "it is no file"
    if status.st_uid != os.geteuid():
        return f"it belongs to the user {status.st_uid}"
    if S_ISREG(status.st_mode) and status.st_nlink > 1:
        return "it has another name as well"
    return ""


# Belief


def stranger(status: os.stat_result, *, root: bool | None = None) -> str:
    """Whose a file is, unless it is the user's or root's; empty otherwise.

    In a program with more rights than its caller root's files do not count: the caller may have led it to one.
    """
    uid, user = status.st_uid, os.geteuid()
    if root is None:
        root = not S_ISREG(status.st_mode) or not environment.is_secure()
    if uid == user or (uid == 0 and root) or (not S_ISREG(status.st_mode) and _is_unmapped(uid)):
        return ""
    return f"belongs to the user {uid}, not to {user}"


def is_master() -> bool:
    """Root's programs may use what belongs to a service's user: a server's, that starts as root. No orders, though."""
    return os.geteuid() == 0 and not environment.is_secure()


def writers(status: os.stat_result) -> str:
    """Who else can write something; empty for nobody. A group that is root's or the user's alone does not count."""
    mode = status.st_mode
    if S_ISDIR(mode) and mode & S_ISVTX:  # as /tmp: everybody may add, nobody may replace
        return ""
    if mode & OTHERS_WRITE:
        return f"can be written by everybody (mode {S_IMODE(mode):04o})"
    if mode & GROUP_WRITES and not _is_private(status.st_gid):
        return f"can be written by the group {status.st_gid} (mode {S_IMODE(mode):04o})"
    return ""


def doubt(folder: str, *, strangers: bool = True) -> str:
    """Why what is in a folder may be somebody else's; empty for no reason, and where the folder is not there.

    `strangers`: whether a folder that belongs to another user is doubted for that.
    """
    path = os.path.abspath(folder)
    try:
        for place in _way_to(path):
            status = os.lstat(place)
            if S_ISLNK(status.st_mode) and (reason := stranger(status)):
                return f"{place}, a symbolic link, {reason}"
        status = os.stat(path)
    except OSError:  # not there, or not to be had: using it says so
        return ""
    reason = writers(status) or (stranger(status) if strangers else "")
    return f"{path} {reason}" if reason else ""


def _way_to(path: str) -> list[str]:
    """The folders from the root to this one."""
    way = [path]
    while way[-1] != os.path.dirname(way[-1]):
        way.append(os.path.dirname(way[-1]))
    return way[::-1]


def _is_private(gid: int) -> bool:
    """Whether a group is root's or the user's own: of that name, without other members, as distributions have it."""
    try:
        import grp
        import pwd

        group, members = grp.getgrgid(gid).gr_name, set(grp.getgrgid(gid).gr_mem)
        if gid == 0:
            return not members - {"root"}
        user = pwd.getpwuid(os.geteuid())
    except (ImportError, KeyError):  # no descriptor is free for an import: nobody can tell
        return False
    return user.pw_gid == gid and group == user.pw_name and not members - {user.pw_name}


def _is_unmapped(uid: int) -> bool:
    """Whether that is nobody's number, but stands for all that a container does not know, root included."""
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            if int(file.read()) != uid:
                return False
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except (OSError, ValueError):
        return False
