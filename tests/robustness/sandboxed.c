/*
 * A service from which systemd has taken the system calls of processes among each other (SystemCallFilter=~@ipc):
 *
 *     sandboxed MODULE PIN
 *
 * It makes a key from a password as NSS does, with a pointer to the password's length. Prints the answers to that, and
 * to a pointer that leads nowhere; or "no filter" where the kernel has none.
 */
#include "host.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define REFUSED(call) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

static int is_filtered(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        REFUSED(process_vm_readv),
        REFUSED(process_vm_writev),
        REFUSED(pipe2),
        REFUSED(memfd_create),
        REFUSED(shmget),
        REFUSED(msgget),
        REFUSED(semget),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static CK_RV key_from_password(CK_ULONG session, const CK_ULONG *length)
{
    CK_PKCS5_PBKD2_PARAMS2 parameter = {0};
    CK_MECHANISM mechanism = {CKM_PKCS5_PBKD2, &parameter, sizeof parameter};
    CK_ULONG type = CKK_AES, size = 16, key;
    CK_ATTRIBUTE template[] = {word_of(CKA_KEY_TYPE, &type), word_of(CKA_VALUE_LEN, &size), bool_of(CKA_TOKEN, 0)};

    parameter.saltSource = 1; /* CKZ_SALT_SPECIFIED */
    parameter.pSaltSourceData = "12345678";
    parameter.ulSaltSourceDataLen = 8;
    parameter.iterations = 1000;
    parameter.prf = 4; /* CKP_PKCS5_PBKD2_HMAC_SHA256 */
    parameter.pPassword = (CK_BYTE *)"secret";
    parameter.ulPasswordLen = (CK_ULONG)length;
    return p11->C_GenerateKey(session, &mechanism, template, 3, &key);
}

int main(int count, char **arguments)
{
    CK_ULONG session, length = 6;
    char *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (count != 3)
        return 2;
    if (!is_filtered()) {
        say("no filter");
        return 0;
    }
    load(arguments[1]);
    OK(p11->C_Initialize(NULL));
    session = open_session();
    OK(login(session, CKU_USER, arguments[2]));
    say("0x%lx", key_from_password(session, &length));
    say("0x%lx", key_from_password(session, (CK_ULONG *)(nowhere + 64)));
    OK(p11->C_Finalize(NULL));
    return 0;
}
