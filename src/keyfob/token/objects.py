"""The objects of one token: session objects in memory, token objects in its store, and the built-in profile object.

Handles: a session object's handle counts up through the process; a token object's is its number in the store plus the
token's base (a multiple of 2**32 that no other token of the process ever gets). So handles are the same in every
session and thread, survive logins, and are never reused (P25), without a table that grows with the store.
"""

from __future__ import annotations

from itertools import count

from keyfob import log
from keyfob.mechanisms.der import OCTET_STRING, Reader, element
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKA, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import SECRETS
from keyfob.store.integrity import NUMBERS
from keyfob.store.search import matches
from keyfob.token import kinds, policy, templates
from keyfob.token.certificate import other_serials
from keyfob.token.object import CERTIFICATE, FALSE, PRIVATE_KEY, TRUE, Object, held, prepare, ulong
from keyfob.token.operation_state import SavedStates
from keyfob.token.search import Search, visible_to_all
from keyfob.token.session import is_open
from keyfob.token.session_objects import SessionObjects
from keyfob.token.values import Incomplete, has, not_held, not_stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store import Store
    from keyfob.token.session import Session
    from keyfob.token.token import Token

Attributes = dict[int, bytes]
Template = list[tuple[int, bytes]]

BASE_STEP = NUMBERS
CACHED_OBJECTS = 4096
LARGEST_CACHED = 1 << 14  # bytes of values
MOST_ATTEMPTS = 100  # at a change that others get in the way of

PROFILE = ulong(CKO.PROFILE)
DATA = ulong(CKO.DATA)

_session_objects = count(1)
_bases: dict[str, int] = {}


def base_of(identity: str) -> int:
    """The handle base of a token's incarnation (serial number and epoch): the same whenever it is opened again."""
    return _bases.setdefault(identity, (len(_bases) + 1) * BASE_STEP)


def new_handle() -> int:
    """Handles of session objects count through the whole process."""
    return next(_session_objects)


class Objects:
    """What C_CreateObject ... C_FindObjects work on. Visibility follows the token's login."""

    __slots__ = ("_cache", "base", "built_in", "in_memory", "incomplete", "states", "store", "token")

    def __init__(self, token: Token, store: Store | None, identity: str) -> None:
        self.token = token
        self.store = store
        self.base = base_of(identity)
        self.in_memory = SessionObjects(token.config.max_objects, token.config.max_object_mib << 20)
        self._cache: dict[int, Object] = {}
        self.built_in: dict[int, Object] = {}
        self.states = SavedStates()
        self.incomplete = Incomplete()
        if store is not None:
            for profile in kinds.profiles(token):
                self._publish_profile(profile)

    def _publish_profile(self, profile: int) -> None:
        """P7: NSS asks for this object before login and then lists certificates without asking for the PIN."""
        handle = new_handle()
        self.built_in[handle] = Object(
            self.token,
            handle,
            {
                CKA.CLASS: ulong(CKO.PROFILE),
                CKA.TOKEN: TRUE,
                CKA.PRIVATE: FALSE,
                CKA.MODIFIABLE: FALSE,
                CKA.COPYABLE: FALSE,
                CKA.DESTROYABLE: FALSE,
                CKA.LABEL: b"",
                CKA.UNIQUE_ID: b"profile-%d" % profile,
                CKA.PROFILE_ID: ulong(profile),
            },
        )

    # Looking up

    def get(self, handle: int) -> Object:
        """The object, if the login of this moment lets it be seen; else CKR_OBJECT_HANDLE_INVALID."""
        found = self._find(handle)
        if found is None or (found.private and not self.token.sees_private_as_of(found.checked_at)):
            raise PKCS11Error(CKR.OBJECT_HANDLE_INVALID, f"no object has the handle {handle}")
        return found

    def key(self, handle: int) -> Object:
        """As `get`, for a key handle: CKR_KEY_HANDLE_INVALID."""
        found = self._find(handle)
        if (
            found is None
            or (found.private and not self.token.sees_private_as_of(found.checked_at))
            or CKA.KEY_TYPE not in found.attributes
        ):
            raise PKCS11Error(CKR.KEY_HANDLE_INVALID, f"no key has the handle {handle}")
        _require_value(found)
        return found

    def find_data(self, handle: int) -> Object | None:
        """The data object of this handle that can be seen, if there is one."""
        found = self._find(handle)
        if found is None or found.attributes[CKA.CLASS] != DATA or (found.private and not self.token.sees_private):
            return None
        return found

    def _find(self, handle: int) -> Object | None:
        stored = handle - self.base
        if 0 < stored < BASE_STEP:
            return self._stored(stored)
        return self.in_memory.get(handle) or self.built_in.get(handle)

    def _stored(self, stored: int) -> Object | None:
        store = self.store
        if store is None:
            return None
        counter = store.change_counter()
        cached = self._cache.get(stored)
        if cached is not None and cached.checked_at == counter and not cached.veiled:
            return cached
        attributes = store.get(stored)
        if attributes is None:
            if cached is not None and not (cached.private and not self.token.sees_private):
                self._cache.pop(stored, None)
            return None
        if cached is None or (cached.attributes is not attributes and cached.attributes != attributes):
            if cached is None:
                prepare(attributes)
            cached = Object(self.token, self.base + stored, attributes, stored=stored)
            self._keep(cached)
        cached.checked_at = counter
        return cached

    def _keep(self, found: Object) -> None:
        """Remember a token object, unless it is large, or private and another thread has just logged out."""
        if found.size > LARGEST_CACHED:
            self._cache.pop(found.stored, None)
            return
        if len(self._cache) >= CACHED_OBJECTS and found.stored not in self._cache:
            drop_oldest(self._cache)
        self._cache[found.stored] = found
        if found.ends_with_login and not self.token.sees_private:
            self._cache.pop(found.stored, None)

    def find(self, template: Template) -> list[int]:
        """Handles of every visible object that has all these attribute values."""
        return self.search(template).take_all()

    def search(self, template: Template) -> Search:
        """The same as it is asked for (section 5.7.7)."""
        try:
            wanted = [(attribute, templates.checked(attribute, value)) for attribute, value in template]
        except PKCS11Error:
            return Search(self, None)  # no object has such a value; NSS expects no hits, not an error (P23)
        found = Search(self, wanted)
        if not found and not OTHER_FORMS.keys().isdisjoint(dict(wanted)):
            found = self._search_in_other_forms(wanted)
        return found

    def _search_in_other_forms(self, wanted: Template) -> Search:
        """What a search without hits finds when values that are written in several ways are written in another."""
        forms: list[Template] = [[]]
        for attribute, value in wanted:
            others = OTHER_FORMS[attribute](value) if attribute in OTHER_FORMS else ()
            forms = [[*form, (attribute, either)] for form in forms[:MOST_FORMS] for either in (value, *others)]
        for form in forms[1:]:
            found = Search(self, form)
            if found:
                return found
        return Search(self, None)

    def stored_matching(
        self, wanted: Template, values: Attributes, after: int, most: int
    ) -> tuple[list[int], int | None]:
        """A part of the token objects' handles, and where to go on: see Store.find_some."""
        if self.store is None:
            return [], None
        asks_secrets = not SECRETS.isdisjoint(values)
        rest = not_stored(values)
        if rest:
            wanted = [(attribute, value) for attribute, value in wanted if attribute not in rest]
        stored, go_on = self.store.find_some(wanted if self.token.sees_private else visible_to_all(wanted), after, most)
        if stored and (asks_secrets or rest):
            objects = ((i, self._stored(i)) for i in stored)
            stored = [
                i
                for i, found in objects
                if found is not None and not (asks_secrets and found.hides_secrets) and has(found, rest)
            ]
        base = self.base
        handles = [base + i for i in stored if i < BASE_STEP]
        return (handles if go_on is not None else handles + self.incomplete.matching(self, values)), go_on

    def stored_visible(self, stored: int) -> Object | None:
        """The token object of this number, if this login sees it."""
        found = self._stored(stored)
        return None if found is None or (found.private and not self.token.sees_private) else found

    def stored_private_keys(self) -> list[int]:
        """The numbers of those that this login sees."""
        wanted: Template = [(CKA.CLASS, PRIVATE_KEY)]
        if self.store is None:
            return []
        return self.store.find(wanted if self.token.sees_private else visible_to_all(wanted))

    def matching_in_memory(self, values: Attributes) -> list[int]:
        """The handles of session objects and of the built-in ones."""
        may_be_built_in = values.get(CKA.CLASS, PROFILE) == PROFILE  # all of those are profiles
        hits: list[int] = []
        if not (self.in_memory or may_be_built_in):
            return hits
        sees_private = self.token.sees_private
        asks_secrets = not SECRETS.isdisjoint(values)
        rest = not_held(values)
        if rest:
            values = {attribute: value for attribute, value in values.items() if attribute not in rest}
        for table in (self.built_in, self.in_memory) if may_be_built_in else (self.in_memory,):
            for handle, found in list(table.items()):
                if found.private and not sees_private:
                    continue
                if asks_secrets and found.hides_secrets:
                    continue
                if matches(values, found.attributes) and has(found, rest):
                    hits.append(handle)
        return hits

    # Changing

    def may_write(self, session: Session, attributes: Attributes) -> None:
        """Section 4.4's rules for making or changing an object with these attributes in this session."""
        if not kinds.keeps(self.token, attributes):
            raise PKCS11Error(
                CKR.ATTRIBUTE_VALUE_INVALID, f"tokens of the kind {self.token.kind} keep no objects of this class"
            )
        if attributes.get(CKA.TOKEN) == TRUE:
            if self.store is None:
                raise PKCS11Error(CKR.TOKEN_NOT_RECOGNIZED, "the token is not initialised")
            if self.token.write_protected:
                raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, "the token is write-protected")
            session.require_read_write()
        policy.may_keep(attributes, sees_private=self.token.sees_private)

    def add(self, session: Session, *objects: Attributes) -> list[int]:
        """Keep complete new objects, all or none; returns their handles."""
        logouts = self.token.logouts
        for attributes in objects:
            self.may_write(session, attributes)
        kept = [
            Object(self.token, new_handle(), held(attributes), owner=session.handle)
            for attributes in objects
            if attributes[CKA.TOKEN] != TRUE
        ]
        self.in_memory.add(kept)
        try:
            if kept and not is_open(session):  # closed by another thread meanwhile, which may not have seen these
                raise PKCS11Error(CKR.SESSION_HANDLE_INVALID, "the session was closed meanwhile")
            if self.token.logouts != logouts and any(found.private for found in kept):
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "somebody has logged out meanwhile")
            numbers = iter(self._insert([attributes for attributes in objects if attributes[CKA.TOKEN] == TRUE]))
        except BaseException:
            for found in kept:
                self.in_memory.drop(found.handle)
            raise
        in_memory = iter(kept)
        return [
            self.base + next(numbers) if attributes[CKA.TOKEN] == TRUE else next(in_memory).handle
            for attributes in objects
        ]

    def _insert(self, stored: list[Attributes]) -> list[int]:
        """Put objects into the store; their numbers there."""
        if not stored:
            return []
        if self.store is None:
            raise PKCS11Error(CKR.TOKEN_NOT_RECOGNIZED, "the token is not initialised")
        replacing = [number for attributes in stored for number in self._replaced_by(attributes)]
        for number in replacing:
            policy.may_destroy(self.store.get(number) or {})
        self._be_ready_to_audit(stored)
        numbers = self.store.insert(stored, replacing=replacing)
        self._audit("key-created", stored)
        return numbers

    def _be_ready_to_audit(self, changed: list[Attributes]) -> None:
        """Before a change: once it is made there may be no descriptor left to read a module from."""
        if self.token.config.audit and any(CKA.KEY_TYPE in attributes for attributes in changed):
            with SETTLED:
                from keyfob.token import audit

                audit.be_ready()

    def _audit(self, name: str, changed: list[Attributes]) -> None:
        with SETTLED:
            for attributes in changed:
                if CKA.KEY_TYPE in attributes:
                    from keyfob.token import audit

                    audit.key_event(self.token, name, attributes, generated=attributes.get(CKA.LOCAL) == TRUE)

    def _replaced_by(self, attributes: Attributes) -> list[int]:
        """P16: NSS writes a new trust object each time and never removes the old one."""
        if attributes[CKA.CLASS] not in policy.TRUST_CLASSES or self.store is None:
            return []
        same = [(attribute, attributes[attribute]) for attribute in (CKA.CLASS, CKA.ISSUER)]
        serial = attributes[CKA.SERIAL_NUMBER]
        forms = (serial, *other_serials(serial))
        return sorted({number for form in forms for number in self.store.find([*same, (CKA.SERIAL_NUMBER, form)])})

    def create(self, session: Session, template: Template) -> int:
        """C_CreateObject."""
        asked = templates.read(template, creating=True)
        attributes = templates.complete(
            asked, templates.CREATE, private_default=self.private_default(asked), role=self.token.role
        )
        handle = self.add(session, attributes)[0]
        if attributes[CKA.CLASS] == CERTIFICATE and attributes[CKA.TOKEN] == TRUE and attributes[CKA.LABEL]:
            with SETTLED:
                self._warn_of_same_label(handle, attributes)
        return handle

    def _warn_of_same_label(self, handle: int, attributes: Attributes) -> None:
        """P32: NSS's cache keeps one of two certificates with the same label and different subjects.

        The label stays as it was asked for: NSS looks for the certificate by it right after writing it.
        """
        for other in self.find([(CKA.CLASS, CERTIFICATE), (CKA.LABEL, attributes[CKA.LABEL])]):
            found = self._find(other) if other != handle else None
            if found is not None and found.attributes.get(CKA.SUBJECT) != attributes.get(CKA.SUBJECT):
                text = "certificates of different subjects have the same label; NSS may show only one of them"
                log.line("warning", f"slot {self.token.slot_id}: {text}")
                return

    def private_default(self, asked: Attributes) -> bool:
        """CKA_PRIVATE of a key whose template does not say."""
        return policy.private_by_default(asked, sees_private=self.token.sees_private)

    def copy(self, session: Session, source: Object, template: Template) -> int:
        """C_CopyObject; an empty template is legal (P2)."""
        role = self.token.role
        _require_value(source)
        policy.may_copy(source.attributes, role)
        attributes = templates.changed(source.attributes, templates.read(template), copying=True, role=role)
        attributes[CKA.UNIQUE_ID] = templates.unique_id()
        return self.add(session, attributes)[0]

    def change(self, session: Session, target: Object, template: Template) -> None:
        """C_SetAttributeValue.

        What it is decided on must still hold when it is done: else two changes at once could undo each other, and one
        that makes a key stricter would be answered and gone.
        """
        asked = templates.read(template)
        for _ in range(MOST_ATTEMPTS):
            self.may_write(session, target.attributes)
            if target.attributes.get(CKA.MODIFIABLE) == FALSE:
                raise PKCS11Error(CKR.ACTION_PROHIBITED, "the object is not modifiable")
            attributes = templates.changed(target.attributes, asked, role=self.token.role)
            if self._put(target, target.changed_to(attributes)):
                if target.stored:
                    with SETTLED:
                        self._audit_change(target.attributes, attributes)
                return
            target = self.get(target.handle)
        raise PKCS11Error(CKR.FUNCTION_FAILED, "the object is changed again and again by others")

    def _audit_change(self, old: Attributes, new: Attributes) -> None:
        if CKA.KEY_TYPE in new:
            from keyfob.token import audit

            changed = audit.weakened(old, new)
            if changed:
                audit.key_event(self.token, "key-changed", new, changed=changed)

    def _put(self, old: Object, new: Object) -> bool:
        """Put one state of an object in place of another; False when that is not the present one any more."""
        if old.stored:
            self._be_ready_to_audit([new.attributes])
            if self.store is None or not self.store.update(old.stored, new.attributes, instead_of=old.attributes):
                return False
            self._keep(new)
            return True
        return self.in_memory.put(old, new)

    def destroy(self, session: Session, target: Object) -> None:
        """C_DestroyObject."""
        self.may_write(session, target.attributes)
        policy.may_destroy(target.attributes)
        if target.stored and self.store is not None:
            self._be_ready_to_audit([target.attributes])
            self.store.delete([target.stored])
            self._cache.pop(target.stored, None)
            self._audit("key-destroyed", [target.attributes])
        else:
            self.in_memory.drop(target.handle)
        self.states.forget(lambda key: key.handle == target.handle)

    # Ends of sessions and logins

    def forget_session(self, owner: int) -> None:
        self.in_memory.end(owner)
        self.states.forget(lambda key: key.owner == owner)

    def forget_private(self) -> None:
        """C_Logout: private session objects die, private token objects and saved states are no longer in memory."""
        self.in_memory.forget_private()
        for found in list(self._cache.values()):
            if found.ends_with_login:
                self._cache.pop(found.stored, None)
        self.states.forget(lambda key: key.ends_with_login)

    def close(self) -> None:
        """Nothing is kept in memory, whoever may still know these objects."""
        self._cache = {}
        self.in_memory = SessionObjects(self.in_memory.most, self.in_memory.most_bytes)
        self.states = SavedStates()


def _require_value(found: Object) -> None:
    if found.veiled:
        raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the key's value is sealed until a login")


def drop_oldest(table: dict[int, Object]) -> None:
    """Make room, unless another thread changes the table in this moment: then next time."""
    try:
        table.pop(next(iter(table)), None)
    except (RuntimeError, StopIteration):
        return


def other_points(value: bytes) -> tuple[bytes, ...]:
    """An EC point raw for its DER OCTET STRING, and the other way round (P33)."""
    reader = Reader(value)
    try:
        raw = reader.read(OCTET_STRING)
        reader.finish()
    except ValueError:
        return (element(OCTET_STRING, value),)
    # One raw point in 256 begins as an OCTET STRING of its length does: 04 3F on P-256.
    return (raw, element(OCTET_STRING, value))


def other_labels(value: bytes) -> tuple[bytes, ...]:
    """A label without the NUL that C programs count in, and with it."""
    return (value[:-1],) if value.endswith(b"\0") else (value + b"\0",)


# The attributes that programs write in several ways, and how.
OTHER_FORMS = {CKA.EC_POINT: other_points, CKA.SERIAL_NUMBER: other_serials, CKA.LABEL: other_labels}
MOST_FORMS = 16
