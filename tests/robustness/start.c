/*
 * What every start of a program does: `start MODULE`: dlopen, C_Initialize, C_GetSlotList, C_Finalize. Exit status 0 when
 * each answered CKR_OK. MODULE_PARAMETERS in the environment is what NSS's softoken takes as its parameters.
 */
#include "host.h"

int main(int count, char **arguments)
{
    struct {
        CK_C_INITIALIZE_ARGS standard;
        void *behind; /* softoken looks for a NULL there */
    } all;
    CK_ULONG slots;

    if (count != 2)
        return 2;
    memset(&all, 0, sizeof all);
    all.standard.flags = CKF_OS_LOCKING_OK;
    all.standard.pReserved = getenv("MODULE_PARAMETERS");
    load(arguments[1]);
    OK(p11->C_Initialize(&all));
    OK(p11->C_GetSlotList(1, NULL, &slots));
    OK(p11->C_Finalize(NULL));
    return 0;
}
