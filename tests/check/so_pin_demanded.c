/* keyfob (SO_PIN_DEMANDED_OF) with one rule broken: the SO always needs his PIN, as in modules that know no NSS (P6). */

#include <dlfcn.h>
#include <stdlib.h>

#include "cryptoki.h"

#define USER_TYPE_SO 0 /* CKU_SO */
#define PIN_INCORRECT 0xa0 /* CKR_PIN_INCORRECT */

typedef CK_RV (*GetFunctionList)(CK_FUNCTION_LIST **);

static const CK_FUNCTION_LIST *real;
static CK_FUNCTION_LIST list;

static CK_RV login(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length)
{
    return user == USER_TYPE_SO && length == 0 ? PIN_INCORRECT : real->C_Login(session, user, pin, length);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **found)
{
    void *module = dlopen(getenv("SO_PIN_DEMANDED_OF"), RTLD_NOW);
    GetFunctionList get = module == NULL ? NULL : (GetFunctionList)dlsym(module, "C_GetFunctionList");

    if (get == NULL || get((CK_FUNCTION_LIST **)&real) != CKR_OK)
        return CKR_GENERAL_ERROR;
    list = *real;
    list.C_Login = login;
    *found = &list;
    return CKR_OK;
}
