/* O17, O19 to O21, P7, P23 to P25, P33: finding objects and reading attributes. */

#include "shim.h"

/* Whether the search of identifiers_are_unique looks for an ID (1), and has found its one (2). */
static int single;

static CK_RV no_profile(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ULONG nothing = 0x7fffffff;
    CK_ATTRIBUTE impossible = {CKA_CLASS, &nothing, sizeof nothing};
    if (number_in(template, count, CKA_CLASS) == CKO_PROFILE)
        return real->C_FindObjectsInit(session, &impossible, 1);
    return real->C_FindObjectsInit(session, template, count);
}
MUTATION(no_profile, C_FindObjectsInit)

static CK_RV unknown_class_is_an_error(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ULONG class = number_in(template, count, CKA_CLASS);
    if (class != ~0UL && class > CKO_SECRET_KEY)
        return CKR_USER_NOT_LOGGED_IN;
    return real->C_FindObjectsInit(session, template, count);
}
MUTATION(unknown_class_is_an_error, C_FindObjectsInit)

static CK_RV empty_search_is_an_error(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return template == NULL ? CKR_ARGUMENTS_BAD : real->C_FindObjectsInit(session, template, count);
}
MUTATION(empty_search_is_an_error, C_FindObjectsInit)

static CK_RV any_value_is_found(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    int alone = count == 1 && template->type == CKA_VALUE;
    return real->C_FindObjectsInit(session, template, alone ? 0 : count);
}
MUTATION(any_value_is_found, C_FindObjectsInit)

/* On a token that asks for no login: then nobody ever sees its keys. */
static CK_RV private_keys_need_login(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (number_in(template, count, CKA_CLASS) == CKO_PRIVATE_KEY && !logged_in(session))
        return CKR_USER_NOT_LOGGED_IN;
    return real->C_FindObjectsInit(session, template, count);
}
MUTATION(private_keys_need_login, C_FindObjectsInit)

/* Points are kept, and looked for, as DER alone: 65 bytes are a raw one of P-256. */
static CK_RV finds_no_raw_point(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ATTRIBUTE *point = attribute_of(template, count, CKA_EC_POINT);
    CK_BYTE nothing[1] = {0};
    CK_ATTRIBUTE impossible = {CKA_EC_POINT, nothing, 1};
    if (point != NULL && point->ulValueLen == 65)
        return real->C_FindObjectsInit(session, &impossible, 1);
    return real->C_FindObjectsInit(session, template, count);
}
MUTATION(finds_no_raw_point, C_FindObjectsInit)

static CK_RV five_objects_at_a_time(CK_ULONG session, CK_ULONG *objects, CK_ULONG most, CK_ULONG *count)
{
    return real->C_FindObjects(session, objects, most > 5 ? 5 : most, count);
}
MUTATION(five_objects_at_a_time, C_FindObjects)

static CK_RV finds_ten_at_most(CK_ULONG session, CK_ULONG *objects, CK_ULONG most, CK_ULONG *count)
{
    static CK_ULONG found[1024]; /* by session */
    CK_ULONG *so_far = &found[session % 1024];
    if (*so_far >= 10) {
        *so_far = 0;
        *count = 0;
        return CKR_OK;
    }
    CK_ULONG left = 10 - *so_far;
    CK_RV rv = real->C_FindObjects(session, objects, most < left ? most : left, count);
    *so_far += *count;
    if (*count < most)
        *so_far = 0;
    return rv;
}
MUTATION(finds_ten_at_most, C_FindObjects)

static CK_RV final_fails(CK_ULONG session)
{
    real->C_FindObjectsFinal(session);
    return CKR_FUNCTION_FAILED;
}
MUTATION(final_fails, C_FindObjectsFinal)

/* A search that is over after its first short batch, as some modules have it. */
static CK_RV short_batch_ends_the_search(CK_ULONG session, CK_ULONG *objects, CK_ULONG most, CK_ULONG *count)
{
    CK_RV rv = real->C_FindObjects(session, objects, most, count);
    if (rv == CKR_OK && *count < most)
        real->C_FindObjectsFinal(session);
    return rv;
}
MUTATION(short_batch_ends_the_search, C_FindObjects)

static CK_RV stops_at_the_first_missing(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    for (CK_ULONG i = 0; i < count; i++) {
        CK_RV rv = real->C_GetAttributeValue(session, object, &template[i], 1);
        if (rv != CKR_OK)
            return rv;
    }
    return CKR_OK;
}
MUTATION(stops_at_the_first_missing, C_GetAttributeValue)

static CK_RV missing_has_length_zero(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_RV rv = real->C_GetAttributeValue(session, object, template, count);
    for (CK_ULONG i = 0; i < count; i++)
        if (template[i].ulValueLen == ~0UL)
            template[i].ulValueLen = 0;
    return rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ? CKR_OK : rv;
}
MUTATION(missing_has_length_zero, C_GetAttributeValue)

static CK_RV numbers_of_four_bytes(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_ULONG value = 0;
    CK_ATTRIBUTE *found = attribute_of(template, count, CKA_KEY_TYPE);
    if (found == NULL)
        return real->C_GetAttributeValue(session, object, template, count);
    void *room = found->pValue;
    CK_ULONG length = found->ulValueLen;
    *found = (CK_ATTRIBUTE){CKA_KEY_TYPE, &value, sizeof value};
    CK_RV rv = real->C_GetAttributeValue(session, object, template, count);
    found->pValue = room;
    if (found->ulValueLen == sizeof value) {
        found->ulValueLen = 4;
        if (room != NULL && length >= 4)
            memcpy(room, &value, 4);
    }
    return rv;
}
MUTATION(numbers_of_four_bytes, C_GetAttributeValue)

static CK_RV without_attribute(CK_ULONG type, CK_ULONG class, CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template,
                               CK_ULONG count)
{
    CK_RV rv = real->C_GetAttributeValue(session, object, template, count);
    for (CK_ULONG i = 0; i < count; i++)
        if (template[i].type == type && number_of(session, object, CKA_CLASS) == class) {
            template[i].ulValueLen = ~0UL;
            rv = CKR_ATTRIBUTE_TYPE_INVALID;
        }
    return rv;
}

static CK_RV modulus_is_hidden(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return without_attribute(CKA_MODULUS, CKO_PRIVATE_KEY, session, object, template, count);
}
MUTATION(modulus_is_hidden, C_GetAttributeValue)

static CK_RV curve_is_hidden(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return without_attribute(CKA_EC_PARAMS, CKO_PRIVATE_KEY, session, object, template, count);
}
MUTATION(curve_is_hidden, C_GetAttributeValue)

static CK_RV certificates_have_no_serial(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return without_attribute(CKA_SERIAL_NUMBER, CKO_CERTIFICATE, session, object, template, count);
}
MUTATION(certificates_have_no_serial, C_GetAttributeValue)

static CK_RV certificates_have_no_token(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return without_attribute(CKA_TOKEN, CKO_CERTIFICATE, session, object, template, count);
}
MUTATION(certificates_have_no_token, C_GetAttributeValue)

/* Session objects have handles that differ from session to session. */
#define TURN(session) ((session) << 40)

static CK_RV turned_find(CK_ULONG session, CK_ULONG *objects, CK_ULONG most, CK_ULONG *count)
{
    CK_RV rv = real->C_FindObjects(session, objects, most, count);
    for (CK_ULONG i = 0; rv == CKR_OK && i < *count; i++)
        if (!is_token_object(session, objects[i]))
            objects[i] ^= TURN(session);
    return rv;
}

static CK_RV turned_get(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_RV rv = real->C_GetAttributeValue(session, object ^ TURN(session), template, count);
    return rv == CKR_OBJECT_HANDLE_INVALID ? real->C_GetAttributeValue(session, object, template, count) : rv;
}

static void apply_handles_of_one_session(Functions *list)
{
    list->C_FindObjects = turned_find;
    list->C_GetAttributeValue = turned_get;
}

static CK_RV finds_no_serial(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_BYTE nothing[1] = {0};
    CK_ATTRIBUTE impossible = {CKA_SERIAL_NUMBER, nothing, 1};
    CK_ULONG class = number_in(template, count, CKA_CLASS);
    if (class == CKO_CERTIFICATE && attribute_of(template, count, CKA_SERIAL_NUMBER) != NULL)
        return real->C_FindObjectsInit(session, &impossible, 1);
    return real->C_FindObjectsInit(session, template, count);
}
MUTATION(finds_no_serial, C_FindObjectsInit)

static CK_RV searches_need_login(CK_ULONG session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    return logged_in(session) ? real->C_FindObjectsInit(session, template, count) : CKR_USER_NOT_LOGGED_IN;
}
MUTATION(searches_need_login, C_FindObjectsInit)

/* Of several objects with one CKA_ID only the first is found. */
static CK_RV identifiers_are_unique(CK_ULONG session, CK_ATTRIBUTE *wanted, CK_ULONG count)
{
    single = attribute_of(wanted, count, CKA_ID) != NULL;
    return real->C_FindObjectsInit(session, wanted, count);
}

static CK_RV finds_the_first(CK_ULONG session, CK_ULONG *objects, CK_ULONG room, CK_ULONG *count)
{
    if (single == 2) {
        *count = 0;
        return CKR_OK;
    }
    CK_RV rv = real->C_FindObjects(session, objects, single && room > 1 ? 1 : room, count);
    if (single && rv == CKR_OK && *count > 0)
        single = 2;
    return rv;
}

static void apply_identifiers_are_unique(Functions *list)
{
    list->C_FindObjectsInit = identifiers_are_unique;
    list->C_FindObjects = finds_the_first;
}

const Mutant search_mutants[] = {
    ROW(no_profile),
    ROW(unknown_class_is_an_error),
    ROW(empty_search_is_an_error),
    ROW(any_value_is_found),
    ROW(private_keys_need_login),
    ROW(finds_no_raw_point),
    ROW(five_objects_at_a_time),
    ROW(finds_ten_at_most),
    ROW(final_fails),
    ROW(short_batch_ends_the_search),
    ROW(stops_at_the_first_missing),
    ROW(missing_has_length_zero),
    ROW(numbers_of_four_bytes),
    ROW(modulus_is_hidden),
    ROW(curve_is_hidden),
    ROW(certificates_have_no_serial),
    ROW(certificates_have_no_token),
    ROW(handles_of_one_session),
    ROW(finds_no_serial),
    ROW(searches_need_login),
    ROW(identifiers_are_unique),
    END,
};
