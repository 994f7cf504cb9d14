"""All slots of the process, between C_Initialize and C_Finalize.

Tokens are kept on a shelf, a folder of files or a database server, each under its slot's ID: stable across runs (P36).
Without any token there is slot 1 with an uninitialised one, so that C_InitToken and NSS's first PIN work. Slots are
never taken away (S2); a new token gives a new slot when the list is asked for anew.

`slot-N.removable` makes N a slot whose token may come and go: removable.py.
"""

from __future__ import annotations

import os
from _thread import RLock

from keyfob import log
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore, open_shelf
from keyfob.store.folder import PREFIX, Folder
from keyfob.store.hardening import agree
from keyfob.store.info import MAX_LABEL
from keyfob.token import removable, strict
from keyfob.token.removable import Registration, RemovableToken
from keyfob.token.session import REMOVABLE, SESSIONS
from keyfob.token.token import DEFAULT_LABEL, Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.config import Config
    from keyfob.store import Store
    from keyfob.store.protocol import Shelf


class Library:
    """`tokens`: by slot ID, in ascending order."""

    def __init__(self, config: Config) -> None:
        self.config = config
        agree(config.hardening)
        strict.MODE.on = config.strict
        self._shelf: Shelf | None = None
        self.lock = RLock()
        self.tokens: dict[int, Token] = {}
        self.process = os.getpid()
        self.closed = False
        self._is_place_kept = False  # slot 1 stands for tokens that could not be asked for
        self.rescan()

    @property
    def shelf(self) -> Shelf:
        """Where the tokens are; PKCS11Error where the configuration names a place that cannot be."""
        if self._shelf is None:
            config = self.config
            if not config.store and (doubted := config.doubt()):
                raise PKCS11Error(CKR.DEVICE_ERROR, f"the folder of tokens is not believed: {doubted}")
            self._shelf = open_shelf(
                config.store,
                config.tokens,
                config.witness,
                patience=config.patience,
                max_age=config.max_age_ms / 1000,
            )
        return self._shelf

    def registration(self, slot_id: int) -> Registration:
        """The registration of a removable slot, whether it is there or not."""
        return Registration(os.path.join(self.config.tokens, f"{PREFIX}{slot_id}{removable.SUFFIX}"))

    def rescan(self) -> None:
        """Take up token files that came since; S2: never fewer slots than before."""
        with self.lock:
            if self.closed:
                return
            try:
                on_shelf = self.shelf.slots(_complain)
            except PKCS11Error as problem:
                self._keep_place(problem)
                return
            for slot_id in self._removable_slots(on_shelf):
                known = self.tokens.get(slot_id)
                if known is None:
                    self._register(slot_id)
                elif known.removable:
                    known.look()
            for slot_id in on_shelf:
                known = self.tokens.get(slot_id)
                if known is None:
                    known = self.tokens[slot_id] = self._token(slot_id)
                if known.store is None and not known.removable:
                    self._open(known)
            if not self.tokens or (not on_shelf and self._is_place_kept):
                self.tokens[1] = self._token(1)
            self._is_place_kept = False
            self.tokens = dict(sorted(self.tokens.items()))

    def _keep_place(self, problem: PKCS11Error) -> None:
        """Nobody knows what tokens there are: one slot says why, and a later look at the slots may find them."""
        log.line("error", f"the tokens cannot be reached: {problem}")
        if not self.tokens:
            self.tokens[1] = self._token(1)
            self.tokens[1].mark_broken(problem)
            self._is_place_kept = True

    def _removable_slots(self, on_shelf: list[int]) -> list[int]:
        """Registered slots; of one that has a token on the shelf, too, that one counts."""
        if not isinstance(self.shelf, Folder):
            return []
        return [each for each in self.shelf.numbers(removable.SUFFIX, _complain) if each not in on_shelf]

    def _open(self, token: Token) -> None:
        """Give the token its store. One that cannot be opened keeps its slot, which says why, and its data."""
        slot_id = token.slot_id
        try:
            store = self.open_store(slot_id)
            try:
                token.attach(store)
            except BaseException:
                store.close()
                raise
        except PKCS11Error as problem:
            if token.broken is None or token.broken.reason != problem.reason:
                log.line("error", f"slot {slot_id}: the token cannot be opened: {problem}")
            token.mark_broken(problem)

    def open_store(self, slot_id: int) -> Store:
        """The store of a slot's token, beside the one that the token has open itself, if any."""
        known = self.tokens.get(slot_id)
        if isinstance(known, RemovableToken):
            path = known.registration.token_path
            witness = self.config.witness_of(slot_id)
            store: Store = SqliteStore.open(path, log=self._logger(slot_id), witness=witness)
        else:
            store = self.shelf.open(slot_id, self._logger(slot_id))
        store.configure(self.config)
        return store

    def _logger(self, slot_id: int) -> Callable[[str], None]:
        """For what a store has to tell: damage, tampering, older copies that were put back."""

        def tell(text: str) -> None:
            log.line("warning", f"slot {slot_id}: {text}")
            self._audit("store-warning", slot=slot_id, reason=text)

        return tell

    def _token(self, slot_id: int) -> Token:
        def make_store(label: str, so_pin: bytes) -> Store:
            return self.make_store(slot_id, label, so_pin)

        return Token(slot_id, make_store, self.config)

    def _register(self, slot_id: int) -> None:
        def make_store(label: str, so_pin: bytes) -> Store:
            return self.make_store(slot_id, label, so_pin)

        token = RemovableToken(slot_id, make_store, self.config, self.registration(slot_id), self._open)
        self.tokens[slot_id] = token
        token.settle()

    def make_store(
        self,
        slot_id: int,
        label: str,
        so_pin: bytes,
        kind: str = "multipurpose",
        *,
        general_access: bool = False,
        empty_pin: bool = False,
        pepper: str = "",
    ) -> Store:
        """A new token for the slot; another process that was first wins, and this call fails cleanly.

        `pepper`: where it is (store/secret_file.py); empty: what the configuration says for tokens of this label.
        """
        from keyfob.store import calibration
        from keyfob.store.pepper import Peppers

        label = label or DEFAULT_LABEL
        self.check_label(label, slot_id)
        try:
            self.config.make_folders()
        except OSError as problem:
            text = f"the folder of tokens cannot be made: {problem.strerror}"
            raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, text) from None
        hardening = calibration.chosen(self.config.hardening)
        pepper = pepper or self.config.token(label).pepper
        new_pepper = Peppers(self.config, self._logger(slot_id)).new(pepper) if pepper else None
        serial = os.urandom(8).hex()
        known = self.tokens.get(slot_id)
        if isinstance(known, RemovableToken):
            path = known.registration.token_path
            made: Store = SqliteStore.create(
                path,
                label=label,
                serial=serial,
                kind=kind,
                so_pin=so_pin,
                hardening=hardening,
                general_access=general_access,
                empty_pin=empty_pin,
                pepper=new_pepper,
                log=self._logger(slot_id),
                witness=self.config.witness_of(slot_id),
            )
        else:
            made = self.shelf.create(
                slot_id,
                self._logger(slot_id),
                label=label,
                serial=serial,
                kind=kind,
                so_pin=so_pin,
                hardening=hardening,
                general_access=general_access,
                empty_pin=empty_pin,
                pepper=new_pepper,
            )
        made.configure(self.config)
        self._audit("token-created", slot=slot_id, token=label)
        return made

    def delete(self, slot_id: int) -> None:
        """Close a slot's token and remove it for good."""
        known = self.tokens.pop(slot_id, None)
        if known is not None:
            known.close()
        if isinstance(known, RemovableToken):
            from keyfob.store import folder, key_file

            path = known.registration.token_path
            folder.remove(path, key_file.beside(path))
        else:
            self.shelf.delete(slot_id)

    def _audit(self, name: str, **facts: str | int) -> None:
        with SETTLED:
            from keyfob.token import audit

            audit.write(self.config, name, facts)

    def check_label(self, label: str, slot_id: int) -> None:
        """P17: NSS splits `token:nickname` at the first colon and finds tokens by their label.

        Blanks at the end are padding to NSS: with one a label could not be told from that without.
        """
        if ":" in label or label.endswith(" ") or not label.isprintable() or not 1 <= len(label.encode()) <= MAX_LABEL:
            reason = "a label has 1 to 32 bytes of printable text, without a colon and without a blank at its end"
            raise PKCS11Error(CKR.ARGUMENTS_BAD, reason)
        for other in list(self.tokens.values()):
            if other.slot_id == slot_id or other.broken is not None:
                continue
            try:
                info = other.info
            except PKCS11Error:  # damaged since it was opened
                continue
            if info is not None and info.label == label:
                raise PKCS11Error(CKR.ARGUMENTS_BAD, f"slot {other.slot_id} has a token with this label already")

    def next_slot(self, *, to_be_removable: bool = False) -> int:
        """The ID that a further token gets. 1 is never removable: running programs may have the stand-in there (S5)."""
        on_shelf = self.shelf.slots(_complain)
        last = max([0, *on_shelf, *self._removable_slots(on_shelf)])
        return max(last + 1, 2 if to_be_removable else 1)

    def slot(self, slot_id: int) -> Token:
        """The slot's token, as it is at this moment; `absent` where the slot holds none."""
        found = self.tokens.get(slot_id)
        if found is None:
            raise PKCS11Error(CKR.SLOT_ID_INVALID, f"there is no slot {slot_id}")
        found.look()
        return found

    def token(self, slot_id: int) -> Token:
        """As `slot`; CKR_TOKEN_NOT_PRESENT where the slot holds none."""
        found = self.slot(slot_id)
        if found.absent:
            raise PKCS11Error(CKR.TOKEN_NOT_PRESENT, f"there is no token in slot {slot_id}")
        return found

    def removables(self) -> list[RemovableToken]:
        return [token for token in list(self.tokens.values()) if isinstance(token, RemovableToken)]

    def moved_slot(self) -> int | None:
        """A slot whose token came or went since this was last told; None for none."""
        for token in self.removables():
            token.look()
            if token.moved:
                token.moved = False
                return token.slot_id
        return None

    def close(self) -> None:
        """C_Finalize: sessions end, stores close; no thread or lock stays behind."""
        with self.lock:
            self.closed = True
            for token in self.tokens.values():
                try:
                    token.close()
                except PKCS11Error as problem:  # the others are closed all the same
                    log.line("error", f"slot {token.slot_id}: {problem}")
                except MemoryError:
                    log.line("error", "out of memory")
            self.tokens = {}
            SESSIONS.clear()
            REMOVABLE.clear()

    def abandon(self) -> None:
        """In a forked child: forget everything without touching what the parent still uses (P39)."""
        for token in self.tokens.values():
            token.abandon()
        self.tokens = {}
        SESSIONS.clear()
        REMOVABLE.clear()


def _complain(text: str) -> None:
    log.line("warning", text)
