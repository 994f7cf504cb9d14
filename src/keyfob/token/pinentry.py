"""Asking a person for a PIN with a pinentry program: the protected authentication path (section 5.6, P31).

The client gives no PIN (NULL), and so never sees one: the program that `[pinentry]` names opens its own dialog and
hands the PIN to us. Both talk Assuan, lines of text in both directions (libassuan, "Assuan Protocol"; pinentry,
"Protocol"):

    <- OK Pleased to meet you
    -> SETDESC The PIN of the token "work"%0A...       %, CR and LF are escaped as %XX
    <- OK
    -> GETPIN
    <- D 1234                                          or ERR 83886179 Operation cancelled <Pinentry>
    <- OK

The program is started without a shell, gets the environment of the host (DISPLAY, WAYLAND_DISPLAY, GPG_TTY and the
like), a socket as its standard input and output, and no other descriptor of the host. Where the environment must not
count, as in a setuid program, none is started. It is no thread or signal handler of ours that waits for its end: a host
that ignores SIGCHLD, or collects all children itself, changes nothing.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock

from keyfob import environment
from keyfob.aside import ASIDE
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

GRACE = 2.0  # seconds beyond the time limit in which the program may say itself that the time is over
PATIENCE = 1.0  # seconds for it to end, once by itself and once when asked by SIGTERM
STEP = 0.01
MOST_BYTES = 16384  # of an answer
FEWEST_DESCRIPTORS = 1024  # closed where there is no list of the open ones
ESCAPED = {"%": "%25", "\r": "%0D", "\n": "%0A"}
HEX = b"0123456789abcdefABCDEF"
# gpg-error.h: the low 16 bits of an error tell what, the others who.
CODE = 0xFFFF
TIMEOUT, CANCELED, NOT_CONFIRMED, FULLY_CANCELED = 62, 99, 114, 198
GIVEN_UP = {
    TIMEOUT: "nobody entered a PIN in time",
    CANCELED: "the person cancelled",
    NOT_CONFIRMED: "the person cancelled",
    FULLY_CANCELED: "the person cancelled",
}


class Question:
    """What the dialog says. `error`: why it comes again. `repeat`: a new PIN, to be entered twice."""

    __slots__ = ("description", "error", "prompt", "repeat")

    def __init__(self, description: str, prompt: str, *, error: str = "", repeat: bool = False) -> None:
        self.description = description
        self.prompt = prompt
        self.error = error
        self.repeat = repeat


class RefusedError(Exception):
    """The program answered a command with an error, whose code this is."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Pinentry:
    """One run of the program, for one question. `end` may be called from any thread, and so ends `ask` in its own."""

    __slots__ = ("_channel", "_deadline", "_ended", "_lock", "_process", "_received", "program", "seconds")

    def __init__(self, program: str, seconds: int) -> None:
        """Starts nothing yet. `program`: a path, or a name to look for in PATH; `seconds` limit the whole dialog."""
        self.program = program
        self.seconds = seconds
        self._deadline = 0.0
        self._lock = allocate_lock()  # of what `end` touches: _channel, _ended, _process
        self._channel: socket | None = None
        self._process = 0
        self._ended = False
        self._received = b""

    def ask(self, question: Question) -> bytes:
        """The PIN that the person enters.

        CKR_FUNCTION_CANCELED: cancelled, or not entered in time; CKR_FUNCTION_FAILED: the program is missing or fails.
        """
        if environment.is_secure():
            text = "is not started in a program with rights that its caller has not got (setuid, setgid, capabilities)"
            raise self._failure(text)
        self._deadline = time.monotonic() + self.seconds + GRACE
        try:
            self._start()
            self._answer()  # the greeting
            self._set_up(question)
            return self._get_pin(question)
        except RefusedError as refused:
            reason = GIVEN_UP.get(refused.code & CODE)
            if reason is not None:
                raise PKCS11Error(CKR.FUNCTION_CANCELED, reason) from None
            raise self._failure(f"answered with the error {refused.code}") from None
        finally:
            self._finish()

    def end(self) -> None:
        """Close the dialog, as C_Finalize does: `ask` raises CKR_FUNCTION_CANCELED at once. Does not wait."""
        with self._lock:
            self._ended = True
            if self._channel is not None:
                from _socket import SHUT_RDWR

                try:
                    self._channel.shutdown(SHUT_RDWR)
                except OSError:  # the program is gone
                    return
                self._signal_program("SIGTERM")

    def _failure(self, text: str) -> PKCS11Error:
        return PKCS11Error(CKR.FUNCTION_FAILED, f"{self.program}, which asks for PINs, {text}")

    # The dialog

    def _set_up(self, question: Question) -> None:
        for option in options():
            self._optional(f"OPTION {option}")
        self._optional(f"SETTIMEOUT {self.seconds}")
        self._optional("SETTITLE keyfob")
        self._command("SETDESC " + escaped(question.description))
        self._command("SETPROMPT " + escaped(question.prompt))
        if question.error:
            self._optional("SETERROR " + escaped(question.error))

    def _get_pin(self, question: Question) -> bytes:
        if question.repeat:
            self._optional("SETREPEATERROR " + escaped("These are not the same."))
            if self._optional("SETREPEAT " + escaped("Again:")):
                pin, told = self._command("GETPIN")
                if b"PIN_REPEATED" in told:
                    return pin
            else:
                pin, _ = self._command("GETPIN")
            self._command("SETPROMPT " + escaped("Again:"))
            if self._command("GETPIN")[0] != pin:
                raise PKCS11Error(CKR.FUNCTION_CANCELED, "the person entered two different new PINs")
            return pin
        return self._command("GETPIN")[0]

    def _optional(self, command: str) -> bool:
        """A command that older programs may not know."""
        try:
            self._command(command)
        except RefusedError:
            return False
        return True

    def _command(self, command: str) -> tuple[bytes, set[bytes]]:
        self._send(command.encode() + b"\n")
        return self._answer()

    def _answer(self) -> tuple[bytes, set[bytes]]:
        """(data, what status lines told) of an answer that ends with OK; else RefusedError."""
        data = b""
        told: set[bytes] = set()
        while True:
            line = self._line()
            word, _, rest = line.partition(b" ")
            if word == b"OK":
                return data, told
            if word == b"D":
                data += unescaped(rest)
                if len(data) > MOST_BYTES:
                    raise self._failure("answers without end")
            elif word == b"S":
                told.add(rest.partition(b" ")[0])
            elif word == b"ERR":
                code = rest.partition(b" ")[0]
                raise RefusedError(int(code) if code.isdigit() else 0)
            elif word == b"INQUIRE":
                self._send(b"CAN\n")

    # The channel

    def _send(self, data: bytes) -> None:
        from _socket import MSG_NOSIGNAL  # a program that has died must not kill the host by SIGPIPE

        channel = self._open_channel()
        try:
            while data:
                data = data[channel.send(data, MSG_NOSIGNAL) :]
        except OSError:
            raise self._gone() from None

    def _line(self) -> bytes:
        """The next line, without its end."""
        from select import POLLIN, poll

        channel = self._open_channel()
        watched = poll()
        watched.register(channel.fileno(), POLLIN)
        while b"\n" not in self._received:
            left = self._deadline - time.monotonic()
            with ASIDE:
                ready = left > 0 and watched.poll(left * 1000)
            if not ready:
                raise PKCS11Error(CKR.FUNCTION_CANCELED, GIVEN_UP[TIMEOUT])
            try:
                part = channel.recv(MOST_BYTES)
            except OSError:
                part = b""
            if not part:
                raise self._gone()
            if len(self._received) > MOST_BYTES:
                raise self._failure("answers without end")
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _open_channel(self) -> socket:
        channel = self._channel
        if channel is None or self._ended:
            raise self._gone()
        return channel

    def _gone(self) -> PKCS11Error:
        if self._ended:
            return PKCS11Error(CKR.FUNCTION_CANCELED, "the dialog was closed by C_Finalize")
        return self._failure("ended without an answer")

    # The process

    def _start(self) -> None:
        from _socket import socketpair
        from fcntl import F_DUPFD_CLOEXEC, fcntl

        with self._lock:
            if self._ended:
                raise self._gone()
            ours, theirs = socketpair()
            try:
                number = fcntl(theirs.fileno(), F_DUPFD_CLOEXEC, 3)  # above 0 to 2, which the host may have closed
                try:
                    self._process = self._spawn(number)
                finally:
                    os.close(number)
            except OSError as problem:
                ours.close()
                raise self._failure(f"cannot be started: {problem.strerror}") from None
            finally:
                theirs.close()
            self._channel = ours

    def _spawn(self, channel: int) -> int:
        """The process. posix_spawn runs no code of this process in the child, whatever the host's other threads do."""
        from signal import SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM

        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, channel, 0),
            (os.POSIX_SPAWN_DUP2, channel, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        actions += [(os.POSIX_SPAWN_CLOSE, number) for number in open_descriptors() if number > 2]
        return os.posix_spawnp(
            self.program,
            [self.program],
            environment.whole(),
            file_actions=actions,
            setsigmask=[],  # what a thread of the host blocks and the host ignores is not the program's affair
            setsigdef=[SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM],
        )

    def _finish(self) -> None:
        """No process stays behind: by itself, by SIGTERM, or by SIGKILL."""
        with self._lock:
            channel, self._channel = self._channel, None
            if channel is None:
                return
            channel.close()  # which ends a program that waits for a command
        if self._wait():
            return
        self._signal_program("SIGTERM")
        if self._wait():
            return
        self._signal_program("SIGKILL")
        self._wait()

    def _wait(self) -> bool:
        until = time.monotonic() + PATIENCE
        while self._runs():
            if time.monotonic() > until:
                return False
            time.sleep(STEP)
        return True

    def _runs(self) -> bool:
        """Whether the program still runs; collects it when it has ended, unless the host or the kernel did that."""
        if self._process:
            try:
                if os.waitpid(self._process, os.WNOHANG)[0]:
                    self._process = 0
            except ChildProcessError:
                self._process = 0
        return self._process != 0

    def _signal_program(self, name: str) -> None:
        """To the program alone: never to a number that another process may have by now."""
        import signal

        if self._runs():
            try:
                os.kill(self._process, signal.Signals[name])
            except ProcessLookupError:
                return


def options() -> list[str]:
    """What the program wants to know of where to show itself; it knows DISPLAY and WAYLAND_DISPLAY by itself."""
    found = []
    terminal = environment.get("GPG_TTY") or _terminal()
    if terminal:
        found.append(f"ttyname={terminal}")
        if kind := environment.get("TERM"):
            found.append(f"ttytype={kind}")
    language = next(iter(environment.several(("LC_ALL", "LC_CTYPE", "LANG")).values()), "")
    if language:
        found.append(f"lc-ctype={language}")
    return [option for option in found if option.isprintable()]


def _terminal() -> str:
    for number in range(3):
        try:
            return os.ttyname(number)
        except OSError:
            continue
    return ""


def open_descriptors() -> list[int]:
    """The numbers of all descriptors that the host has open, and a few that were open a moment ago."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(FEWEST_DESCRIPTORS))


def escaped(text: str) -> str:
    return "".join(ESCAPED.get(character, character) for character in text)


def unescaped(data: bytes) -> bytes:
    """Each %XX as the byte it stands for."""
    first, *rest = data.split(b"%")
    for part in rest:
        if len(part) < 2 or not all(digit in HEX for digit in part[:2]):
            raise PKCS11Error(CKR.FUNCTION_FAILED, "the program that asks for PINs answers with a faulty escape")
        first += bytes((int(part[:2], 16),)) + part[2:]
    return first
