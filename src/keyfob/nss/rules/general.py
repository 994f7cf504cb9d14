"""General-purpose functions: loading, interfaces, C_Initialize, C_GetInfo."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="G1",
        title="A module is initialised when it is loaded, and again after its end",
        statement=(
            "NSS calls C_Initialize at start-up for every module of its database, and when a module is loaded later."
        ),
        today="same",
        nss=(
            "Also after a fork and after a wait for slot events was cancelled: C_Finalize and C_Initialize follow "
            "each other in one process."
        ),
        expects=(
            "Initialise, work, end and initialise again any number of times in one process, with the tokens as they "
            "were."
        ),
        user="The module works until the first reload; then every token of it is gone until the program restarts.",
        where=(
            "pk11wrap/pk11load.c secmod_ModuleInit",
            "pk11wrap/pk11util.c SECMOD_RestartModules",
            "pk11wrap/pk11util.c SECMOD_CancelWait",
        ),
        standard="C_Initialize (section 5.4)",
    ),
    Rule(
        id="G2",
        title="C_Initialize gets a struct with flags 3, mutex callbacks and perhaps parameters",
        statement="The guide says that the reserved argument of C_Initialize is always NULL.",
        today="changed",
        nss=(
            "The argument is a CK_C_INITIALIZE_ARGS with four mutex callbacks and the flags "
            "LIBRARY_CANT_CREATE_OS_THREADS and OS_LOCKING_OK. NULL comes only as a second try, or for modules older "
            "than 2.1. NSS's own struct holds one field more: module parameters stand where the standard has "
            "pReserved."
        ),
        expects=(
            "Take the struct with flags 3, the struct with parameters, and NULL; read nothing behind the standard's "
            "fields."
        ),
        user="NSS falls back to one thread for the module, or does not load it at all.",
        where=("pk11wrap/pk11load.c secmod_ModuleInit",),
        standard="C_Initialize, CK_C_INITIALIZE_ARGS (sections 3.8 and 5.4)",
    ),
    Rule(
        id="G3",
        title="C_Finalize ends everything, on shutdown and on unload",
        statement="NSS calls C_Finalize when it shuts down and when a module is unloaded.",
        today="same",
        nss=(
            "C_CloseAllSessions comes before it for every slot, also for disabled ones; C_Finalize(NULL) also "
            "follows a load that failed half-way."
        ),
        expects="CKR_OK to both; later calls answer CKR_CRYPTOKI_NOT_INITIALIZED and do no harm.",
        user="The program hangs or crashes at its end, or NSS reports a shutdown error.",
        where=(
            "pk11wrap/pk11load.c SECMOD_UnloadModule",
            "pk11wrap/pk11load.c secmod_InitializeModuleAndGetSlotInfo",
            "pk11wrap/pk11slot.c PK11_DestroySlot",
        ),
        standard="C_Finalize (section 5.4)",
    ),
    Rule(
        id="G4",
        title="The function list is had by C_GetInterface, else by C_GetFunctionList",
        statement="The guide says that C_GetFunctionList is called when a module is loaded.",
        today="changed",
        nss=(
            "C_GetInterface is looked up first. Only a library without that symbol is asked by C_GetFunctionList; a "
            "C_GetInterface that fails is the end of the load."
        ),
        expects=(
            'Both symbols give a complete list, and C_GetInterface(name "PKCS 11", any version) succeeds with flags 0.'
        ),
        user='"Failed to load module": modutil and Firefox refuse the library.',
        where=("pk11wrap/pk11load.c secmod_DetermineModuleFunctionList",),
        standard="C_GetFunctionList, C_GetInterface (section 5.4)",
    ),
    Rule(
        id="G5",
        title="Every entry of the function list can be called",
        statement=(
            "The list holds all functions of its version; one that a token does not implement is a stub that answers "
            "CKR_FUNCTION_NOT_SUPPORTED."
        ),
        today="same",
        nss=(
            "NSS calls through the list without looking whether an entry is NULL, for example C_GetOperationState "
            "and C_WaitForSlotEvent."
        ),
        expects=(
            "No entry is NULL; what is not implemented answers CKR_FUNCTION_NOT_SUPPORTED and leaves its output "
            "arguments alone."
        ),
        user="The whole program crashes when it comes to the missing function.",
        where=("pk11wrap/pk11cxt.c pk11_saveContextHelper", "pk11wrap/pk11util.c SECMOD_WaitForAnyTokenEvent"),
        standard="C_GetFunctionList (section 5.4)",
    ),
    Rule(
        id="G6",
        title="C_GetInfo is read when the module is loaded",
        statement="NSS calls C_GetInfo on loading and shows version and manufacturer.",
        today="same",
        nss=(
            "A cryptokiVersion below 2 is refused; 2.0 is taken for a module that is not thread-safe. Versions from "
            "2.40 and 3.2 on choose parameter structs and searches."
        ),
        expects="CKR_OK, a version that fits the function list, and text fields that are blank padded without NUL.",
        user="The module is refused, runs on one thread, or shows rubbish as its maker.",
        where=(
            "pk11wrap/pk11load.c secmod_InitializeModuleAndGetSlotInfo",
            "pk11wrap/pk11slot.c PK11_CheckPKCS11Version",
        ),
        standard="C_GetInfo, CK_INFO (sections 3.2 and 5.4)",
    ),
    Rule(
        id="G7",
        title="libraryDescription is the module's name when the user gives none",
        statement="The library's description serves as the module's default name and must not hold double quotes.",
        today="same",
        nss=(
            "Used only for a module that was added without a name; trailing blanks are cut off. The name goes into "
            'the module database, where quotes and "=" have a meaning.'
        ),
        expects='A description that is not blank and holds no quotes, "=" or control characters.',
        user="The module cannot be named, enabled or deleted by modutil; the database line is broken.",
        where=("pk11wrap/pk11load.c secmod_InitializeModuleAndGetSlotInfo", "cmd/modutil/pk11.c AddModule"),
        standard="CK_INFO (section 3.2)",
    ),
)
