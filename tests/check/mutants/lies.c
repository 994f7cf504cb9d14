/* Lengths and counts that cannot be: what a checker reads must not be taken at its word. No rule of NSS is meant. */

#include "shim.h"

#define LIE (1UL << 40)

#define LYING_OUTPUT(name)                                                                                       \
    static CK_RV lies_##name(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out, CK_ULONG *room)     \
    {                                                                                                            \
        CK_RV rv = real->C_##name(session, data, length, out, room);                                             \
        *room = LIE;                                                                                             \
        return rv;                                                                                               \
    }                                                                                                            \
    static void apply_lies_##name(Functions *list) { list->C_##name = lies_##name; }

LYING_OUTPUT(Sign)
LYING_OUTPUT(Decrypt)
LYING_OUTPUT(DecryptUpdate)
LYING_OUTPUT(Encrypt)
LYING_OUTPUT(Digest)

#define LYING_END(name)                                                        \
    static CK_RV lies_##name(CK_ULONG session, CK_BYTE *out, CK_ULONG *room)   \
    {                                                                          \
        CK_RV rv = real->C_##name(session, out, room);                         \
        *room = LIE;                                                           \
        return rv;                                                             \
    }                                                                          \
    static void apply_lies_##name(Functions *list) { list->C_##name = lies_##name; }

LYING_END(SignFinal)
LYING_END(DigestFinal)
LYING_END(GetOperationState)

static CK_RV lies_WrapKey(CK_ULONG session, CK_MECHANISM *mechanism, CK_ULONG wrapping, CK_ULONG key, CK_BYTE *out,
                          CK_ULONG *room)
{
    CK_RV rv = real->C_WrapKey(session, mechanism, wrapping, key, out, room);
    *room = LIE;
    return rv;
}

static void apply_lies_WrapKey(Functions *list) { list->C_WrapKey = lies_WrapKey; }

static CK_RV lies_GetSlotList(CK_BYTE present, CK_ULONG *slots, CK_ULONG *count)
{
    CK_RV rv = real->C_GetSlotList(present, slots, count);
    *count = LIE;
    return rv;
}

static void apply_lies_GetSlotList(Functions *list) { list->C_GetSlotList = lies_GetSlotList; }

static CK_RV lies_GetMechanismList(CK_ULONG slot, CK_ULONG *mechanisms, CK_ULONG *count)
{
    CK_RV rv = real->C_GetMechanismList(slot, mechanisms, count);
    *count = LIE;
    return rv;
}

static void apply_lies_GetMechanismList(Functions *list) { list->C_GetMechanismList = lies_GetMechanismList; }

static CK_RV lies_FindObjects(CK_ULONG session, CK_ULONG *objects, CK_ULONG room, CK_ULONG *count)
{
    CK_RV rv = real->C_FindObjects(session, objects, room, count);
    *count = LIE;
    return rv;
}

static void apply_lies_FindObjects(Functions *list) { list->C_FindObjects = lies_FindObjects; }

/* Sizes are asked for first: the lie is below what NSS takes for "absent". */
static CK_RV lies_GetAttributeValue(CK_ULONG session, CK_ULONG object, CK_ATTRIBUTE *wanted, CK_ULONG count)
{
    CK_RV rv = real->C_GetAttributeValue(session, object, wanted, count);
    for (CK_ULONG i = 0; i < count; i++)
        wanted[i].ulValueLen = 3UL << 30;
    return rv;
}

static void apply_lies_GetAttributeValue(Functions *list) { list->C_GetAttributeValue = lies_GetAttributeValue; }

const Mutant lies[] = {
    ROW(lies_Sign),
    ROW(lies_Decrypt),
    ROW(lies_DecryptUpdate),
    ROW(lies_Encrypt),
    ROW(lies_Digest),
    ROW(lies_SignFinal),
    ROW(lies_DigestFinal),
    ROW(lies_GetOperationState),
    ROW(lies_WrapKey),
    ROW(lies_GetSlotList),
    ROW(lies_GetMechanismList),
    ROW(lies_FindObjects),
    ROW(lies_GetAttributeValue),
    END,
};
