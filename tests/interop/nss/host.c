/* A program on NSS: does what no tool of NSS does, and says on standard output what happened.
 *
 *   host DATABASE MODULE TOKEN PIN present    says whether the token is there, a line for each line of standard input
 *   host ... events                           waits for slot events in a thread, then has NSS cancel the wait
 *   host ... ask always|timeout|once          signs three times; says how often NSS asked for the PIN
 *   host ... again                            signs, a line of standard input, signs: over a removal and an insertion
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cryptohi.h>
#include <keyhi.h>
#include <nss.h>
#include <pk11pub.h>
#include <plstr.h>
#include <prerror.h>
#include <prinit.h>
#include <prthread.h>
#include <secerr.h>
#include <secmod.h>

static int asked;
static char *pin;

static char *give_pin(PK11SlotInfo *slot, PRBool retry, void *unused)
{
    (void)slot, (void)unused;
    asked++;
    return retry ? NULL : PL_strdup(pin);
}

static void say(const char *text)
{
    puts(text);
    fflush(stdout);
}

static void fail(const char *what)
{
    printf("%s: %s\n", what, PR_ErrorToName(PR_GetError()));
    fflush(stdout);
    exit(1);
}

static int next_line(void)
{
    char line[80];
    return fgets(line, sizeof line, stdin) != NULL;
}

/* Sign with the token's first private key; 0 when it worked. */
static int sign(PK11SlotInfo *slot)
{
    unsigned char digest[32] = {7}, buffer[512];
    SECItem data = {siBuffer, digest, sizeof digest}, signature = {siBuffer, buffer, sizeof buffer};
    if (PK11_Authenticate(slot, PR_TRUE, NULL) != SECSuccess)
        return 1;
    SECKEYPrivateKeyList *keys = PK11_ListPrivateKeysInSlot(slot);
    if (keys == NULL || PRIVKEY_LIST_END(PRIVKEY_LIST_HEAD(keys), keys))
        return 2;
    SECKEYPrivateKey *key = PRIVKEY_LIST_HEAD(keys)->key;
    int rv = PK11_Sign(key, &signature, &data) == SECSuccess ? 0 : 3;
    SECKEY_DestroyPrivateKeyList(keys);
    return rv;
}

static void ask(PK11SlotInfo *slot, const char *how)
{
    int when = strcmp(how, "always") == 0 ? -1 : strcmp(how, "timeout") == 0 ? 1 : 0;
    PK11_SetSlotPWValues(slot, when, 0);
    for (int i = 0; i < 3; i++)
        if (sign(slot) != 0)
            fail("sign");
    printf("asked %d times\n", asked);
}

static SECMODModule *watched;

static void wait_for_events(void *unused)
{
    (void)unused;
    for (;;) {
        PK11SlotInfo *slot = SECMOD_WaitForAnyTokenEvent(watched, 0, PR_MillisecondsToInterval(200));
        if (slot == NULL) {
            say("cancelled");
            return;
        }
        say(PK11_IsPresent(slot) ? "inserted" : "removed");
        PK11_FreeSlot(slot);
    }
}

static void events(void)
{
    PRThread *thread = PR_CreateThread(PR_USER_THREAD, wait_for_events, NULL, PR_PRIORITY_NORMAL, PR_GLOBAL_THREAD,
                                       PR_JOINABLE_THREAD, 0);
    say("waiting");
    next_line();
    if (SECMOD_CancelWait(watched) != SECSuccess)
        fail("SECMOD_CancelWait");
    PR_JoinThread(thread);
    say("end");
}

int main(int count, char **arguments)
{
    char spec[1024];
    if (count < 6)
        return 2;
    pin = arguments[4];
    const char *action = arguments[5];
    PK11_SetPasswordFunc(give_pin);
    if (NSS_InitReadWrite(arguments[1]) != SECSuccess)
        fail("NSS_InitReadWrite");
    snprintf(spec, sizeof spec, "library=%s name=keyfob", arguments[2]);
    watched = SECMOD_LoadUserModule(spec, NULL, PR_FALSE);
    if (watched == NULL || !watched->loaded)
        fail("SECMOD_LoadUserModule");
    PK11SlotInfo *slot = PK11_FindSlotByName(arguments[3]);
    if (slot == NULL)
        fail("PK11_FindSlotByName");
    if (strcmp(action, "present") == 0) {
        do
            say(PK11_IsPresent(slot) ? "present" : "absent");
        while (next_line());
    } else if (strcmp(action, "events") == 0) {
        events();
    } else if (strcmp(action, "ask") == 0) {
        ask(slot, arguments[6]);
    } else if (strcmp(action, "again") == 0) {
        do
            printf("sign %d\n", sign(slot)), fflush(stdout);
        while (next_line());
        printf("asked %d times\n", asked);
    }
    PK11_FreeSlot(slot);
    SECMOD_UnloadUserModule(watched);
    SECMOD_DestroyModule(watched);
    return NSS_Shutdown() == SECSuccess ? 0 : 3;
}
