/*
 * A host that signs, with the module bound to the process's symbols, or first to those of its own libraries, as OpenSSL's
 * pkcs11-provider loads it:
 *
 *     binding MODULE PIN global|deep
 */
#include "host.h"

int main(int count, char **arguments)
{
    static CK_BYTE digest[32], signature[SIGNATURE_SIZE];
    CK_ULONG session, keys[4];

    if (count != 4)
        return 2;
    load_by(arguments[1], RTLD_NOW | RTLD_LOCAL | (strcmp(arguments[3], "deep") == 0 ? RTLD_DEEPBIND : 0));
    OK(p11->C_Initialize(NULL));
    session = open_session();
    OK(login(session, CKU_USER, arguments[2]));
    if (find(session, CKO_PRIVATE_KEY, keys, 4) != 1)
        return 1;
    OK(sign(session, keys[0], digest, signature));
    OK(generate_pair(session, "new", "new", 0, keys));
    OK(sign(session, keys[1], digest, signature));
    OK(p11->C_Logout(session));
    OK(p11->C_Finalize(NULL));
    say("done");
    return 0;
}
