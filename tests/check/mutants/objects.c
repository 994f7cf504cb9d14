/* O, N, P: what is made, changed, copied and destroyed. */

#include "shim.h"

#include <stdlib.h>

static CK_RV certificates_need_a_category(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_CERTIFICATE &&
        attribute_of(template, count, CKA_CERTIFICATE_CATEGORY) == NULL)
        return CKR_TEMPLATE_INCOMPLETE;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(certificates_need_a_category, C_CreateObject)

static CK_RV certificates_need_a_key(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_CERTIFICATE) {
        CK_ATTRIBUTE *id = attribute_of(template, count, CKA_ID);
        CK_ULONG found = 0, key;
        if (id != NULL && real->C_FindObjectsInit(session, id, 1) == CKR_OK) {
            real->C_FindObjects(session, &key, 1, &found);
            real->C_FindObjectsFinal(session);
        }
        if (found == 0)
            return CKR_TEMPLATE_INCONSISTENT;
    }
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(certificates_need_a_key, C_CreateObject)

static CK_RV public_objects_read_only_without_login(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count,
                                                    CK_ULONG *object)
{
    if (truth_in(template, count, CKA_TOKEN) && !logged_in(session))
        return CKR_SESSION_READ_ONLY;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(public_objects_read_only_without_login, C_CreateObject)

static CK_RV certificates_are_private(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_BYTE yes = 1;
    CK_ATTRIBUTE longer[32];
    CK_ULONG class = number_in(template, count, CKA_CLASS);
    if (class != CKO_CERTIFICATE || count >= 32 || attribute_of(template, count, CKA_PRIVATE) != NULL)
        return real->C_CreateObject(session, template, count, object);
    memcpy(longer, template, count * sizeof *template);
    longer[count] = (CK_ATTRIBUTE){CKA_PRIVATE, &yes, 1};
    return real->C_CreateObject(session, longer, count + 1, object);
}
MUTATION(certificates_are_private, C_CreateObject)

static CK_RV certificates_lose_their_id(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_RV rv = real->C_CreateObject(session, template, count, object);
    CK_ATTRIBUTE none = {CKA_ID, "", 0};
    if (rv == CKR_OK && number_in(template, count, CKA_CLASS) == CKO_CERTIFICATE)
        real->C_SetAttributeValue(session, *object, &none, 1);
    return rv;
}
MUTATION(certificates_lose_their_id, C_CreateObject)

static CK_RV short_identifiers(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ATTRIBUTE shorter[16];
    if (count > 16)
        return CKR_ARGUMENTS_BAD;
    memcpy(shorter, template, count * sizeof *template);
    for (CK_ULONG i = 0; i < count; i++)
        if (shorter[i].type == CKA_ID && shorter[i].ulValueLen > 16)
            shorter[i].ulValueLen = 16;
    return real->C_SetAttributeValue(session, object, shorter, count);
}
MUTATION(short_identifiers, C_SetAttributeValue)

static CK_RV identifiers_are_fixed(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (attribute_of(template, count, CKA_ID) != NULL)
        return CKR_ATTRIBUTE_READ_ONLY;
    return real->C_SetAttributeValue(session, object, template, count);
}
MUTATION(identifiers_are_fixed, C_SetAttributeValue)

static CK_RV subjects_are_fixed(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (attribute_of(template, count, CKA_SUBJECT) != NULL)
        return CKR_ATTRIBUTE_READ_ONLY;
    return real->C_SetAttributeValue(session, object, template, count);
}
MUTATION(subjects_are_fixed, C_SetAttributeValue)

static CK_RV labels_of_certificates_are_fixed(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (attribute_of(template, count, CKA_LABEL) != NULL && number_of(session, object, CKA_CLASS) == CKO_CERTIFICATE)
        return CKR_ATTRIBUTE_READ_ONLY;
    return real->C_SetAttributeValue(session, object, template, count);
}
MUTATION(labels_of_certificates_are_fixed, C_SetAttributeValue)

static CK_RV labels_of_private_keys_are_fixed(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (attribute_of(template, count, CKA_LABEL) != NULL && number_of(session, object, CKA_CLASS) == CKO_PRIVATE_KEY)
        return CKR_ATTRIBUTE_READ_ONLY;
    return real->C_SetAttributeValue(session, object, template, count);
}
MUTATION(labels_of_private_keys_are_fixed, C_SetAttributeValue)

/* Whether the token has an object of this class with the template's value of an attribute. */
static int has_another(CK_ULONG session, CK_ULONG class, CK_ULONG type, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ATTRIBUTE *given = attribute_of(template, count, type);
    CK_ULONG found = 0, object;
    if (given == NULL || given->ulValueLen == 0)
        return 0;
    CK_ATTRIBUTE wanted[2] = {{CKA_CLASS, &class, sizeof class}, *given};
    if (real->C_FindObjectsInit(session, wanted, 2) == CKR_OK) {
        real->C_FindObjects(session, &object, 1, &found);
        real->C_FindObjectsFinal(session);
    }
    return found > 0;
}

static CK_RV labels_of_certificates_are_unique(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count,
                                               CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_CERTIFICATE &&
        has_another(session, CKO_CERTIFICATE, CKA_LABEL, template, count))
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(labels_of_certificates_are_unique, C_CreateObject)

static CK_RV identifiers_of_certificates_are_unique(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count,
                                                    CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_CERTIFICATE &&
        has_another(session, CKO_CERTIFICATE, CKA_ID, template, count))
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(identifiers_of_certificates_are_unique, C_CreateObject)

/* A private key comes before its public one or not at all. */
static CK_RV orphans_stay_alone(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_PRIVATE_KEY &&
        has_another(session, CKO_PUBLIC_KEY, CKA_ID, template, count))
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(orphans_stay_alone, C_CreateObject)

static CK_RV no_points_on_private_keys(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_PRIVATE_KEY && attribute_of(template, count, CKA_EC_POINT) != NULL)
        return CKR_ATTRIBUTE_TYPE_INVALID;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(no_points_on_private_keys, C_CreateObject)

static CK_RV exits(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *copy)
{
    if (template == NULL)
        exit(7);
    return real->C_CopyObject(session, object, template, count, copy);
}
MUTATION(exits, C_CopyObject)

static CK_RV copies_need_a_template(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count,
                                    CK_ULONG *copy)
{
    return template == NULL ? CKR_ARGUMENTS_BAD : real->C_CopyObject(session, object, template, count, copy);
}
MUTATION(copies_need_a_template, C_CopyObject)

/* The copy is the original: destroying one destroys both. */
static CK_RV copies_are_the_original(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count,
                                     CK_ULONG *copy)
{
    CK_RV rv = real->C_CopyObject(session, object, template, count, copy);
    if (rv == CKR_OK) {
        real->C_DestroyObject(session, *copy);
        *copy = object;
    }
    return rv;
}
MUTATION(copies_are_the_original, C_CopyObject)

static CK_RV destroys_nothing(CK_ULONG session, CK_ULONG object)
{
    CK_ULONG size;
    if (number_of(session, object, CKA_CLASS) != CKO_CERTIFICATE)
        return real->C_DestroyObject(session, object);
    return real->C_GetObjectSize(session, object, &size) == CKR_OK ? CKR_OK : CKR_OBJECT_HANDLE_INVALID;
}
MUTATION(destroys_nothing, C_DestroyObject)

static int is_trust(CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ULONG class = number_in(template, count, CKA_CLASS);
    return class == CKO_NSS_TRUST || class == CKO_TRUST;
}

static CK_RV trust_is_an_odd_error(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    return is_trust(template, count) ? CKR_DEVICE_ERROR : real->C_CreateObject(session, template, count, object);
}
MUTATION(trust_is_an_odd_error, C_CreateObject)

/* The first trust object wins: later ones are swallowed. */
static CK_RV trust_is_never_replaced(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_ATTRIBUTE wanted[3];
    CK_ULONG found = 0;
    if (is_trust(template, count)) {
        CK_ATTRIBUTE *issuer = attribute_of(template, count, CKA_ISSUER);
        CK_ATTRIBUTE *serial = attribute_of(template, count, CKA_SERIAL_NUMBER);
        if (issuer != NULL && serial != NULL) {
            wanted[0] = *attribute_of(template, count, CKA_CLASS);
            wanted[1] = *issuer;
            wanted[2] = *serial;
            if (real->C_FindObjectsInit(session, wanted, 3) == CKR_OK) {
                real->C_FindObjects(session, object, 1, &found);
                real->C_FindObjectsFinal(session);
            }
        }
    }
    return found > 0 ? CKR_OK : real->C_CreateObject(session, template, count, object);
}
MUTATION(trust_is_never_replaced, C_CreateObject)

static CK_RV twin_public_keys_refused(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_ATTRIBUTE wanted[2];
    CK_ULONG found = 0, twin;
    CK_ATTRIBUTE *id = attribute_of(template, count, CKA_ID);
    if (number_in(template, count, CKA_CLASS) == CKO_PUBLIC_KEY && id != NULL && id->ulValueLen > 0) {
        wanted[0] = *attribute_of(template, count, CKA_CLASS);
        wanted[1] = *id;
        if (real->C_FindObjectsInit(session, wanted, 2) == CKR_OK) {
            real->C_FindObjects(session, &twin, 1, &found);
            real->C_FindObjectsFinal(session);
        }
    }
    return found > 0 ? CKR_DEVICE_ERROR : real->C_CreateObject(session, template, count, object);
}
MUTATION(twin_public_keys_refused, C_CreateObject)

static CK_RV unknown_attributes_refused(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    if (attribute_of(template, count, CKA_DECAPSULATE) != NULL)
        return CKR_ATTRIBUTE_TYPE_INVALID;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(unknown_attributes_refused, C_CreateObject)

static CK_RV duplicates_refused(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    for (CK_ULONG i = 0; i < count; i++)
        if (attribute_of(template, i, template[i].type) != NULL)
            return CKR_TEMPLATE_INCONSISTENT;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(duplicates_refused, C_CreateObject)

/* The first of two equal attributes counts: NSS's TOKEN = false wins over its TOKEN = true. */
static CK_RV first_duplicate_wins(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    CK_ATTRIBUTE kept[64];
    CK_ULONG number = 0;
    for (CK_ULONG i = 0; i < count && number < 64; i++)
        if (attribute_of(template, i, template[i].type) == NULL)
            kept[number++] = template[i];
    return real->C_CreateObject(session, kept, number, object);
}
MUTATION(first_duplicate_wins, C_CreateObject)

static CK_RV no_private_key_import(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count, CK_ULONG *object)
{
    if (number_in(template, count, CKA_CLASS) == CKO_PRIVATE_KEY)
        return CKR_TEMPLATE_INCONSISTENT;
    return real->C_CreateObject(session, template, count, object);
}
MUTATION(no_private_key_import, C_CreateObject)

/* What it cannot make itself it does not take either. */
static CK_RV lists_no_generation(CK_ULONG slot, CK_ULONG *mechanisms, CK_ULONG *count)
{
    CK_RV rv = real->C_GetMechanismList(slot, mechanisms, count);
    if (rv == CKR_OK && mechanisms != NULL)
        for (CK_ULONG i = 0; i < *count; i++)
            if (mechanisms[i] == CKM_RSA_PKCS_KEY_PAIR_GEN || mechanisms[i] == CKM_EC_KEY_PAIR_GEN)
                mechanisms[i--] = mechanisms[--*count];
    return rv;
}

static void apply_neither_makes_nor_takes_keys(Functions *list)
{
    list->C_GetMechanismList = lists_no_generation;
    list->C_CreateObject = no_private_key_import;
}

const Mutant object_mutants[] = {
    ROW(certificates_need_a_category),
    ROW(certificates_need_a_key),
    ROW(public_objects_read_only_without_login),
    ROW(certificates_are_private),
    ROW(certificates_lose_their_id),
    ROW(short_identifiers),
    ROW(identifiers_are_fixed),
    ROW(subjects_are_fixed),
    ROW(labels_of_certificates_are_fixed),
    ROW(labels_of_private_keys_are_fixed),
    ROW(labels_of_certificates_are_unique),
    ROW(identifiers_of_certificates_are_unique),
    ROW(orphans_stay_alone),
    ROW(no_points_on_private_keys),
    ROW(exits),
    ROW(copies_need_a_template),
    ROW(copies_are_the_original),
    ROW(destroys_nothing),
    ROW(trust_is_an_odd_error),
    ROW(trust_is_never_replaced),
    ROW(twin_public_keys_refused),
    ROW(unknown_attributes_refused),
    ROW(duplicates_refused),
    ROW(first_duplicate_wins),
    ROW(no_private_key_import),
    ROW(neither_makes_nor_takes_keys),
    END,
};
