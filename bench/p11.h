/* The part of PKCS #11 that the benchmark needs, in our own words: 2.40's function list (every slot has its place, only
 * the functions that are called have a type) and the structures that those functions take. Linux, 64 bit: no packing. */
#ifndef KEYFOB_BENCH_P11_H
#define KEYFOB_BENCH_P11_H

typedef unsigned char CK_BYTE;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_HANDLE; /* a session or an object */

typedef struct {
    CK_ULONG type;
    void *value;
    CK_ULONG length;
} CK_ATTRIBUTE;

typedef struct {
    CK_ULONG mechanism;
    void *parameter;
    CK_ULONG length;
} CK_MECHANISM;

typedef struct {
    CK_BYTE *iv;
    CK_ULONG iv_length, iv_bits;
    CK_BYTE *aad;
    CK_ULONG aad_length, tag_bits;
} CK_GCM_PARAMS;

typedef struct {
    CK_BYTE major, minor;
} CK_VERSION;

typedef struct {
    CK_VERSION cryptoki;
    CK_BYTE manufacturer[32];
    CK_ULONG flags;
    CK_BYTE description[32];
    CK_VERSION library;
} CK_INFO;

typedef struct {
    CK_BYTE label[32], manufacturer[32], model[16], serial[16];
    CK_ULONG flags;
    CK_ULONG counts[10]; /* sessions, PIN lengths, memory */
    CK_VERSION hardware, firmware;
    CK_BYTE time[16];
} CK_TOKEN_INFO;

typedef struct {
    CK_ULONG slot, state, flags, device_error;
} CK_SESSION_INFO;

/* The standard's structure ends with `reserved`, which must be NULL. NSS's softoken takes its parameter string there, and
 * then expects one more pointer, NULL, behind it: other modules never look at that one. */
typedef struct {
    void *create_mutex, *destroy_mutex, *lock_mutex, *unlock_mutex;
    CK_ULONG flags;
    void *reserved;
    void *behind_reserved;
} CK_C_INITIALIZE_ARGS;

typedef struct {
    CK_VERSION version;
    CK_RV (*C_Initialize)(void *arguments);
    CK_RV (*C_Finalize)(void *reserved);
    CK_RV (*C_GetInfo)(CK_INFO *info);
    void *C_GetFunctionList;
    CK_RV (*C_GetSlotList)(CK_BYTE token_present, CK_ULONG *slots, CK_ULONG *count);
    void *C_GetSlotInfo;
    CK_RV (*C_GetTokenInfo)(CK_ULONG slot, CK_TOKEN_INFO *info);
    void *C_GetMechanismList, *C_GetMechanismInfo, *C_InitToken, *C_InitPIN, *C_SetPIN;
    CK_RV (*C_OpenSession)(CK_ULONG slot, CK_ULONG flags, void *application, void *notify, CK_HANDLE *session);
    CK_RV (*C_CloseSession)(CK_HANDLE session);
    void *C_CloseAllSessions;
    CK_RV (*C_GetSessionInfo)(CK_HANDLE session, CK_SESSION_INFO *info);
    void *C_GetOperationState, *C_SetOperationState;
    CK_RV (*C_Login)(CK_HANDLE session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length);
    CK_RV (*C_Logout)(CK_HANDLE session);
    CK_RV (*C_CreateObject)(CK_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count, CK_HANDLE *object);
    void *C_CopyObject;
    CK_RV (*C_DestroyObject)(CK_HANDLE session, CK_HANDLE object);
    void *C_GetObjectSize;
    CK_RV (*C_GetAttributeValue)(CK_HANDLE session, CK_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count);
    void *C_SetAttributeValue;
    CK_RV (*C_FindObjectsInit)(CK_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count);
    CK_RV (*C_FindObjects)(CK_HANDLE session, CK_HANDLE *objects, CK_ULONG limit, CK_ULONG *count);
    CK_RV (*C_FindObjectsFinal)(CK_HANDLE session);
    CK_RV (*C_EncryptInit)(CK_HANDLE session, CK_MECHANISM *mechanism, CK_HANDLE key);
    CK_RV (*C_Encrypt)(CK_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length);
    void *C_EncryptUpdate, *C_EncryptFinal, *C_DecryptInit, *C_Decrypt, *C_DecryptUpdate, *C_DecryptFinal;
    CK_RV (*C_DigestInit)(CK_HANDLE session, CK_MECHANISM *mechanism);
    CK_RV (*C_Digest)(CK_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length);
    void *C_DigestUpdate, *C_DigestKey, *C_DigestFinal;
    CK_RV (*C_SignInit)(CK_HANDLE session, CK_MECHANISM *mechanism, CK_HANDLE key);
    CK_RV (*C_Sign)(CK_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length);
    void *C_SignUpdate, *C_SignFinal, *C_SignRecoverInit, *C_SignRecover;
    void *C_VerifyInit, *C_Verify, *C_VerifyUpdate, *C_VerifyFinal, *C_VerifyRecoverInit, *C_VerifyRecover;
    void *C_DigestEncryptUpdate, *C_DecryptDigestUpdate, *C_SignEncryptUpdate, *C_DecryptVerifyUpdate;
    void *C_GenerateKey;
    CK_RV (*C_GenerateKeyPair)(CK_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public_template,
                               CK_ULONG public_count, CK_ATTRIBUTE *private_template, CK_ULONG private_count,
                               CK_HANDLE *public_key, CK_HANDLE *private_key);
    void *C_WrapKey, *C_UnwrapKey, *C_DeriveKey, *C_SeedRandom, *C_GenerateRandom;
    void *C_GetFunctionStatus, *C_CancelFunction, *C_WaitForSlotEvent;
} CK_FUNCTION_LIST;

/* CK_TOKEN_INFO ends its counts with hardware and firmware versions; a wrong size would make a module write past it. */
_Static_assert(sizeof(CK_TOKEN_INFO) == 208, "CK_TOKEN_INFO has the standard's size");
_Static_assert(sizeof(CK_FUNCTION_LIST) == 8 + 68 * sizeof(void *), "2.40 lists 68 functions");

#define CKR_OK 0UL
#define CKF_OS_LOCKING_OK 2UL
#define CKF_SERIAL_SESSION 4UL
#define CKF_RW_SESSION 2UL
#define CKU_USER 1UL
#define CKA_ID 0x102UL

#endif
