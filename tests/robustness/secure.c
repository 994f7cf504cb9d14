/*
 * A host that is installed with rights which its caller has not got (setuid), and logs in without a PIN.
 *
 *     secure MODULE
 *
 * Prints whether the kernel says so (AT_SECURE), the first token's label, and the answer of C_Login.
 */
#include "host.h"

#include <sys/auxv.h>

int main(int count, char **arguments)
{
    CK_TOKEN_INFO info;
    CK_ULONG session;

    if (count != 2)
        return 2;
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    OK(p11->C_GetTokenInfo(first_slot(), &info));
    OK(p11->C_OpenSession(first_slot(), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    say("%lu %.4s %lx", getauxval(AT_SECURE), (const char *)info.label, p11->C_Login(session, CKU_USER, NULL, 0));
    OK(p11->C_Finalize(NULL));
    return 0;
}
