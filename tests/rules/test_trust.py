"""Trust in certificates: NSS writes a new object each time, never looks for the old one, and believes the first hit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyfob.spec.constants import CKA, CKO, CKR
from tests.client import RvError, Template
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot, start
from tests.rules.software_keys import certificate_of, ec_key

MINE, OTHER = certificate_of(ec_key(), "CA", serial=5), certificate_of(ec_key(), "CA", serial=6)
# Of each form: class, template, the value that tells server trust, and values for "trusted" and "distrusted".
Form = tuple[int, Callable[..., Template], int, int, int]
FORMS: dict[str, Form] = {
    "NSS": (
        CKO.NSS_TRUST,
        templates.nss_trust,
        CKA.NSS_TRUST_SERVER_AUTH,
        templates.NSS_TRUSTED_DELEGATOR,
        templates.NSS_NOT_TRUSTED,
    ),
    "standard": (
        CKO.TRUST,
        templates.standard_trust,
        CKA.TRUST_SERVER_AUTH,
        templates.TRUST_ANCHOR,
        templates.TRUST_NOT_TRUSTED,
    ),
}


@pytest.fixture
def slot(nss: Nss) -> Slot:
    """Of a token whose user is logged in."""
    nss.slot.login(PIN)
    return nss.slot


@pytest.mark.rule("P16")
@pytest.mark.parametrize("form", FORMS)
def test_trust_is_kept_as_it_was_written(slot: Slot, form: str) -> None:
    """Keeps NSS's 11 attributes of CKO_NSS_TRUST and 10 of CKO_TRUST, and shows them before a login too."""
    object_class, template, _, trusted, _ = FORMS[form]
    sent = template(MINE, trusted)
    assert len(sent) == (11 if form == "NSS" else 10)
    handle = slot.create(sent)
    slot.logout()
    assert slot.find(templates.of_certificate(MINE, object_class), 1) == [handle]
    for attribute, value in sent:
        if isinstance(value, bool):
            assert slot.boolean(handle, attribute) is value
        elif isinstance(value, int):
            assert slot.ulong(handle, attribute) == value
        else:
            assert slot.read(handle, attribute) == [value]


@pytest.mark.rule("P16")
@pytest.mark.parametrize("form", FORMS)
def test_trust_that_changes_ten_times(slot: Slot, form: str) -> None:
    """Has one trust object for a certificate after any number of edits, with the last edit's values."""
    object_class, template, attribute, trusted, distrusted = FORMS[form]
    other = slot.create(template(OTHER, trusted))
    for i in range(10):
        value = (trusted, distrusted)[i % 2]
        slot.create(template(MINE, value))
        (found,) = slot.find(templates.of_certificate(MINE, object_class))
        assert slot.ulong(found, attribute) == value
    assert len(slot.find([(CKA.CLASS, object_class)])) == 2
    assert slot.find(templates.of_certificate(OTHER, object_class), 1) == [other], "another's trust stays"
    assert slot.ulong(other, attribute) == trusted


@pytest.mark.parametrize("form", FORMS)
def test_trust_that_is_not_destroyable_is_not_replaced_either(slot: Slot, form: str) -> None:
    object_class, template, attribute, trusted, distrusted = FORMS[form]
    slot.create([*template(MINE, trusted), (CKA.DESTROYABLE, False)])
    with pytest.raises(RvError) as refused:
        slot.create(template(MINE, distrusted))
    assert refused.value.rv == CKR.ACTION_PROHIBITED
    (found,) = slot.find(templates.of_certificate(MINE, object_class))
    assert slot.ulong(found, attribute) == trusted


@pytest.mark.rule("P16")
def test_both_forms_stand_side_by_side(slot: Slot) -> None:
    """Keeps CKO_NSS_TRUST and CKO_TRUST of one certificate apart, as NSS reads both, the standard's first."""
    handles = {}
    for object_class, template, _, trusted, _ in FORMS.values():
        handles[object_class] = slot.create(template(MINE, trusted))
    for object_class, handle in handles.items():
        assert slot.find(templates.of_certificate(MINE, object_class), 1) == [handle]


@pytest.mark.rule("P16")
@pytest.mark.parametrize("form", FORMS)
def test_trust_outlives_nss_and_is_destroyed(nss: Nss, form: str) -> None:
    """Keeps the last trust over an end and a start of NSS; destroyed, it is gone, and can be written again."""
    object_class, template, attribute, trusted, distrusted = FORMS[form]
    nss.slot.login(PIN)
    nss.slot.create(template(MINE, distrusted))
    nss.slot.create(template(MINE, trusted))
    nss.end()
    slot = start(nss.client).slot
    (found,) = slot.find(templates.of_certificate(MINE, object_class))
    assert slot.ulong(found, attribute) == trusted
    slot.login(PIN)
    assert slot.destroy(found) == CKR.OK
    assert slot.find(templates.of_certificate(MINE, object_class)) == []
    assert slot.create(template(MINE, trusted)) != found


@pytest.mark.rule("P16", "P18")
@pytest.mark.parametrize("form", FORMS)
def test_trust_without_the_pin(nss: Nss, form: str) -> None:
    """Writes, changes and destroys trust after the login only: CKR_USER_NOT_LOGGED_IN makes NSS ask for the PIN."""
    object_class, template, attribute, trusted, distrusted = FORMS[form]
    slot = nss.slot
    with pytest.raises(RvError) as refusal:
        slot.create(template(MINE, trusted))
    assert refusal.value.rv == CKR.USER_NOT_LOGGED_IN
    slot.login(PIN)
    handle = slot.create(template(MINE, trusted))
    slot.logout()
    with pytest.raises(RvError) as refusal:
        slot.create(template(MINE, distrusted))
    assert refusal.value.rv == CKR.USER_NOT_LOGGED_IN
    assert slot.set(handle, [(attribute, distrusted)]) == CKR.USER_NOT_LOGGED_IN
    assert slot.destroy(handle) == CKR.USER_NOT_LOGGED_IN
    assert slot.find(templates.of_certificate(MINE, object_class)) == [handle]
    assert slot.ulong(handle, attribute) == trusted


@pytest.mark.rule("P16", "O18")
@pytest.mark.parametrize("form", FORMS)
def test_trust_is_changed_in_place(slot: Slot, form: str) -> None:
    """Takes other trust values by C_SetAttributeValue too, as other programs than NSS do it."""
    object_class, template, attribute, trusted, distrusted = FORMS[form]
    handle = slot.create(template(MINE, trusted))
    assert slot.set(handle, [(attribute, distrusted)]) == CKR.OK
    assert slot.ulong(handle, attribute) == distrusted
    assert slot.find(templates.of_certificate(MINE, object_class)) == [handle]


@pytest.mark.rule("P16")
@pytest.mark.parametrize("form", FORMS)
def test_trust_without_issuer_or_serial_is_refused(slot: Slot, form: str) -> None:
    """Refuses trust that names no certificate, and values of a wrong length, with the template's codes."""
    _, template, attribute, trusted, _ = FORMS[form]
    complete = template(MINE, trusted)
    for missing in (CKA.ISSUER, CKA.SERIAL_NUMBER):
        with pytest.raises(RvError) as refusal:
            slot.create([(a, v) for a, v in complete if a != missing])
        assert refusal.value.rv == CKR.TEMPLATE_INCOMPLETE
    with pytest.raises(RvError) as refusal:
        slot.create([(a, b"\x01" if a == attribute else v) for a, v in complete])
    assert refusal.value.rv == CKR.ATTRIBUTE_VALUE_INVALID
