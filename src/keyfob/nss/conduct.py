"""How a module must behave towards its host, whatever it is asked: the rules X, which every scenario checks.

They are the checker's own. The guide takes them for granted; a host can do nothing about a module that breaks them.
"""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

CRASH, HANG, EXIT, OUTPUT, MEMORY = "X1", "X2", "X3", "X4", "X5"

RULES: tuple[Rule, ...] = (
    Rule(
        id=CRASH,
        title="A module never crashes its host",
        statement="A call of the module never ends in a signal.",
        nss="NSS loads modules into the program itself: a crash of the module is a crash of Firefox.",
        expects="Every argument is checked; what is wrong is answered with a CKR code.",
        user="The program crashes.",
        where=("pk11wrap/pk11load.c secmod_LoadPKCS11Module",),
    ),
    Rule(
        id=HANG,
        title="A module answers",
        statement="A call comes back in time, C_WaitForSlotEvent without DONT_BLOCK apart.",
        nss="NSS has no time limit: it waits for ever, often on the thread that draws the window.",
        expects="Every call comes back; what takes long does not keep other sessions waiting.",
        user="The program freezes and has to be killed.",
        where=("pk11wrap/pk11slot.c PK11_EnterSlotMonitor",),
    ),
    Rule(
        id=EXIT,
        title="A module never ends its host",
        statement="A module calls neither exit() nor abort().",
        nss="The program ends without saving anything.",
        expects="CKR_GENERAL_ERROR, or CKR_DEVICE_ERROR, and a line in a log of one's own.",
        user="The program is gone.",
        where=("pk11wrap/pk11load.c secmod_LoadPKCS11Module",),
    ),
    Rule(
        id=OUTPUT,
        title="A module leaves standard output alone",
        statement="Standard output belongs to the program.",
        nss="NSS's tools write their results there: certutil -L -a > cert.pem would hold the module's lines, too.",
        expects="Nothing is printed; a log goes to a file or to the system's log.",
        user="Files and pipes made with NSS's tools are damaged.",
        where=("cmd/certutil/certutil.c",),
    ),
    Rule(
        id=MEMORY,
        title="A module stays inside the caller's buffers",
        statement="A module never writes behind the length that it was given.",
        nss="NSS gives buffers of exactly the length that it computed, on its stack and its heap.",
        expects="CKR_BUFFER_TOO_SMALL, with the length that is needed.",
        user="Crashes at places that have nothing to do with the module.",
        where=("pk11wrap/pk11obj.c PK11_Sign", "dev/ckhelper.c nssCKObject_GetAttributes"),
    ),
)
