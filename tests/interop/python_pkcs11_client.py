"""A program that uses a token through python-pkcs11, so that the module runs inside a Python interpreter not its own.

`python -m tests.interop.python_pkcs11_client MODULE LABEL PIN TASK` runs one task, prints `done` and ends with 0.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from tests.interop.python_pkcs11_tasks import MESSAGE, SESSION_TASKS, Token, ec_pair, ec_signs_digests, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def threads_work_side_by_side(token: Token, pin: str) -> None:
    """Eight threads, each with a session of its own and keys of its own, while the host's threads compute."""
    failures: list[str] = []
    digest = hashlib.sha256(MESSAGE).digest()
    ended = threading.Event()

    def work(number: int) -> None:
        try:
            with token.open() as session:
                public, private = ec_pair(session, "secp256r1")
                key = session.generate_key(KeyType.AES, 256)
                for turn in range(25):
                    data = digest[turn:] + digest[:turn]
                    signature = private.sign(data, mechanism=Mechanism.ECDSA)
                    assert public.verify(data, signature, mechanism=Mechanism.ECDSA)
                    iv = bytes([number] * 16)
                    assert key.decrypt(key.encrypt(data, mechanism_param=iv), mechanism_param=iv) == data
        except Exception as failure:
            failures.append(f"{type(failure).__name__}: {failure}")

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    with token.open(user_pin=pin):
        busy = threading.Thread(target=compute)
        busy.start()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended.set()
        busy.join()
    assert not failures, failures


def wrong_pin_is_refused(token: Token, pin: str) -> None:
    """And the right one is good after it."""
    refused(pkcs11.PinIncorrect, lambda: token.open(user_pin=pin + "x"))
    with token.open() as session:
        refused(pkcs11.NoSuchKey, lambda: session.get_key(ObjectClass.PRIVATE_KEY))
    with token.open(user_pin=pin):
        pass


def pin_is_changed(token: Token, pin: str) -> None:
    """C_SetPIN to another PIN and back."""
    with token.open(rw=True, user_pin=pin) as session:
        session.set_pin(pin, "another-PIN-1")
    refused(pkcs11.PinIncorrect, lambda: token.open(user_pin=pin))
    with token.open(rw=True, user_pin="another-PIN-1") as session:
        session.set_pin("another-PIN-1", pin)


def key_is_left_for_the_next_process(token: Token, pin: str) -> None:
    """First half of a test of two processes."""
    with token.open(rw=True, user_pin=pin) as session:
        ec_pair(session, "secp256r1", label="left behind")


def key_of_the_last_process_signs(token: Token, pin: str) -> None:
    """Second half."""
    digest = hashlib.sha256(MESSAGE).digest()
    with token.open(user_pin=pin) as session:
        public = session.get_key(ObjectClass.PUBLIC_KEY, label="left behind")
        private = session.get_key(ObjectClass.PRIVATE_KEY, label="left behind")
        signature = private.sign(digest, mechanism=Mechanism.ECDSA)
        assert public.verify(digest, signature, mechanism=Mechanism.ECDSA)


def session_left_open_at_exit(token: Token, pin: str) -> None:
    """The interpreter goes down with a login, a session and an active search."""
    session = token.open(user_pin=pin)
    search = session.get_objects()
    next(iter(search), None)
    globals()["_left_open"] = (session, search)


def module_is_initialised_again(token: Token, pin: str) -> None:
    """C_Finalize and C_Initialize in the same process, three times, with work in between."""
    module, label = sys.argv[1], token.label
    for _ in range(3):
        with token.open(user_pin=pin) as session:
            ec_signs_digests(session)
        library = pkcs11.lib(module)
        library.reinitialize()
        token = library.get_token(token_label=label)
        with token.open() as session:
            assert list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})) == []


def forked_child_works(token: Token, pin: str) -> None:
    """A child must initialise again (CKR_CRYPTOKI_NOT_INITIALIZED until then); it and the parent then both sign."""
    with token.open(user_pin=pin) as session:
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(sys.argv[1], token.label, pin))
        ec_signs_digests(session)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        ec_signs_digests(session)


def _in_the_child(module: str, label: str, pin: str) -> int:
    library = pkcs11.lib(module)
    refused(pkcs11.PKCS11Error, library.get_slots)
    refused(pkcs11.PKCS11Error, library.finalize)  # which makes python-pkcs11 ready to initialise again
    library.initialize()
    with library.get_token(token_label=label).open(user_pin=pin) as session:
        ec_signs_digests(session)
    return 0


TOKEN_TASKS: Mapping[str, Callable[[Token, str], None]] = {
    task.__name__: task
    for task in (
        threads_work_side_by_side,
        wrong_pin_is_refused,
        pin_is_changed,
        key_is_left_for_the_next_process,
        key_of_the_last_process_signs,
        session_left_open_at_exit,
        module_is_initialised_again,
        forked_child_works,
    )
}
"""Tasks that log in by themselves."""


def main(module: str, label: str, pin: str, task: str) -> None:
    """Run one task on the token named `label`."""
    token = pkcs11.lib(module).get_token(token_label=label)
    if task in TOKEN_TASKS:
        TOKEN_TASKS[task](token, pin)
    else:
        with token.open(rw=True, user_pin=pin) as session:
            SESSION_TASKS[task](session)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
