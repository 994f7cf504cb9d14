"""How NSS loads a module, and ends it: entry points, C_Initialize in all its forms, C_GetInfo, C_Finalize."""

from __future__ import annotations

import threading
from typing import Any

from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Module, Reply
from keyfob.nss.driver.library import FIPS_INTERFACE
from keyfob.nss.driver.mutexes import MUTEXES
from keyfob.nss.driver.structs import text
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKF, CKR

REFUSED_IN_NAMES = "\"'="
"""What modutil and the lines of pkcs11.txt cannot hold in a module's name."""
CODE = "x"


def _executable(address: int, maps: list[tuple[int, int, str]]) -> bool:
    return any(first <= address < last and CODE in rights for first, last, rights in maps)


def _maps() -> list[tuple[int, int, str]]:
    """The memory of this process as (first, behind the last, rights); empty where the system does not tell."""
    try:
        with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
            lines = [line.split()[:2] for line in file]
    except OSError:
        return []
    return [(*(int(number, 16) for number in span.split("-")), rights) for span, rights in lines]  # type: ignore[misc]


@scenario(
    "load",
    "Load the module, initialise it, end it, and once more",
    rules=("G1", "G2", "G3", "G4", "G5", "G6", "G7", "I1", "K6", "P8", "P9"),
)
def load(context: Context) -> None:
    module = context.module
    with context.checking("I1") as check:
        check.passed("it was loaded by its absolute path")
    with context.step("find the functions"):
        _entry_points(context, module)
    with context.step("C_Initialize"):
        if not _initialise(context, module):
            context.give_up("C_Initialize fails in every way that NSS tries: NSS does not load the module")
    context.fact("mutexes", {"created": MUTEXES.created})
    _info(context, module)
    _end_and_again(context, module)
    if MUTEXES.misuses:
        with context.checking("G2") as check:
            check.fail(f"the mutex callbacks were misused: {MUTEXES.misuses[0]}")


def _entry_points(context: Context, module: Module) -> None:
    with context.checking("P8") as pitfall:
        with context.checking("G4") as check:
            reply = module.resolve()
            name = reply.call.function
            context.fact("entry point", name)
            if name == "C_GetInterface":
                if not reply.is_ok or not module.pointers.get("C_Initialize"):
                    saw = f'C_GetInterface("PKCS 11", NULL, 0) answered {reply.name} and gave no functions'
                    pitfall.fail(saw, reply)
                    check.fail(saw, reply)
                elif module.interface is not None and module.interface.name != b"PKCS 11":
                    pitfall.fail(f"the default interface is called {module.interface.name!r}", reply)
                check.passed("C_GetInterface is exported: NSS takes its default interface")
            else:
                check.expect_rv(reply, CKR.OK)
                check.expect(module.pointers.get("C_Initialize"), f"{name} gave no functions", reply)
                check.passed("C_GetInterface is not exported: NSS takes C_GetFunctionList")
        if "C_Initialize" not in module.pointers:
            context.fact("not loaded", f"{name} answered {reply.name} and gave no functions")
            context.give_up(f"{name} gave no function list")
        major, minor = module.version
        context.fact("list version", f"{major}.{minor}")
        pitfall.expect(2 <= major <= 3, f"the function list says that it is of version {major}.{minor}", reply)
        missing = [function for function, address in module.pointers.items() if not address]
        with context.checking("G5") as check:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            check.expect(not missing, f"the function list has NULL for {shown}", reply)
        maps = _maps()
        if maps:
            wild = [n for n, address in module.pointers.items() if address and not _executable(address, maps)]
            if wild:
                saw = f"the list says {major}.{minor}, but {wild[0]} in it points to no code: the list is shorter"
                pitfall.fail(saw, reply)
                context.give_up("the function list is shorter than its version says")
    with context.checking("K6") as check:
        if module.has("C_GetInterface") or module.symbols["C_GetInterface"]:
            fips = module.get_interface(FIPS_INTERFACE, 0)
            check.passed("it has NSS's FIPS interface" if fips.is_ok else f"{fips.name}: NSS goes on without")
        else:
            check.not_applicable("C_GetInterface is not exported: NSS cannot ask for its FIPS interface")


def _initialise(context: Context, module: Module) -> bool:
    """Flags 3 with callbacks; after any error once more, for one thread (load:276-309); whether either worked."""
    parameters = context.options.parameters
    expects = "CKR_OK to flags 3 with four mutex callbacks."
    with context.checking("P9") as pitfall, context.checking("G2") as check:
        reply = module.C_Initialize(parameters=parameters)
        if reply.is_ok:
            return True
        retry = (
            module.C_Initialize_NULL()
            if parameters is None
            else module.C_Initialize(parameters=parameters, callbacks=False)
        )
        if retry.is_ok:
            check.fail(f"NSS's way to initialise the module is answered with {reply.name}", reply, expects=expects)
            pitfall.fail(f"flags 3 with mutex callbacks are answered with {reply.name}", reply, expects=expects)
            pitfall.warn("NSS uses the module with one thread at a time", retry)
            return True
        # It is not the way that it minds.
        context.fact("not loaded", f"C_Initialize answered {reply.name}")
        saw = f"C_Initialize answered {reply.name}, and {retry.name} to NSS's second try: NSS does not load the module"
        check.fail(saw, reply, retry, expects=expects, user="The module does not load.")
        pitfall.not_tested("C_Initialize fails in every way: see G2")
    return False


def _info(context: Context, module: Module) -> None:
    with context.step("C_GetInfo"), context.checking("G6") as check:
        reply = module.C_GetInfo()
        info = reply.ok()
        version = (info.cryptokiVersion.major, info.cryptokiVersion.minor)
        manufacturer = text(info.manufacturerID)
        description = text(info.libraryDescription)
        context.fact(
            "info",
            {
                "cryptoki": "{}.{}".format(*version),
                "manufacturer": _readable(manufacturer),
                "description": _readable(description),
                "version": f"{info.libraryVersion.major}.{info.libraryVersion.minor}",
            },
        )
        check.expect(version[0] >= 2, f"cryptokiVersion is {version[0]}.{version[1]}: NSS refuses the module", reply)
        if version == (2, 0):
            check.warn("cryptokiVersion is 2.0: NSS uses the module with one thread at a time", reply)
        if version[0] != module.version[0]:
            check.warn(
                f"C_GetInfo says {version[0]}.{version[1]}, the function list {module.version[0]}.{module.version[1]}",
                reply,
            )
        for name, field in (("manufacturerID", manufacturer), ("libraryDescription", description)):
            if b"\0" in field:
                check.warn(f"{name} is padded with NUL instead of blanks", reply)
    with context.checking("G7") as check:
        _description(check, _readable(description), reply)


def _description(check: Check, name: str, reply: Reply[Any]) -> None:
    check.expect(
        name.strip(), "libraryDescription is blank: the module has no name unless its user gives it one", reply
    )
    bad = [character for character in name if character in REFUSED_IN_NAMES or not character.isprintable()]
    check.expect(not bad, f"libraryDescription {name!r} holds {bad[:1]}, which a module's name cannot have", reply)


def _readable(field: bytes) -> str:
    return field.rstrip(b" \0").decode(errors="replace")


def _end_and_again(context: Context, module: Module) -> None:
    with context.step("C_Finalize"), context.checking("G3") as check:
        slots = _slots(module)
        for slot in slots:
            module.C_CloseAllSessions(slot)
        check.expect_rv(module.C_Finalize(), CKR.OK)
    with context.step("C_Initialize again"), context.checking("G1") as check:
        # As it was initialised before: what the first C_Initialize answered is not this rule's matter.
        reply = module.C_Initialize(parameters=context.options.parameters)
        if not reply.is_ok and context.options.parameters is None:
            reply = module.C_Initialize_NULL()
        reply.ok()
        again = _slots(module)
        lost = [slot for slot in slots if slot not in again]
        check.expect(not lost, f"slots {lost} are gone after C_Finalize and C_Initialize", reply)
        for slot in again:
            info = module.C_GetSlotInfo(slot)
            if info.is_ok and info.value.flags & CKF.TOKEN_PRESENT:
                check.expect_rv(module.C_GetTokenInfo(slot), CKR.OK, because="after C_Finalize and C_Initialize")
        module.C_Finalize()


def _slots(module: Module) -> list[int]:
    """The slots, as far as the module tells them: a list that fails is rule S1's matter."""
    counted = module.C_GetSlotList(False, None)
    listed = module.C_GetSlotList(False, counted.value) if counted.is_ok else counted
    return list(listed.value) if listed.is_ok and isinstance(listed.value, list) else []


@scenario("load: after the end", "Calls after C_Finalize, as of a program that forked or unloads late", rules=("G3",))
def load_after_the_end(context: Context) -> None:
    """In a process of its own: a module may crash here."""
    module = context.module
    with context.checking("G3") as check:
        with check.setup("load the module and end it"):
            context.nss()
            context.finish()
        for reply in (
            module.C_GetSlotList(False, None),
            module.C_GetSessionInfo(1),
            module.C_CloseSession(1),
            module.C_GetInfo(),
        ):
            # Any error will do for NSS: by C_GetSlotList a program that forked finds out (SECMOD_RestartModules).
            if reply.is_ok:
                check.warn(
                    f"{reply.call.function} answered CKR_OK after C_Finalize, as if nothing had ended",
                    reply,
                    expects="CKR_CRYPTOKI_NOT_INITIALIZED.",
                    user="A server that forks after its start goes on with what its parent initialised.",
                )


@scenario("load: NULL", "C_Initialize with NULL, as NSS's second try", rules=("G2",))
def load_null(context: Context) -> None:
    module = context.module
    with context.checking("G2") as check:
        with check.setup("get the function list"):
            module.resolve().ok()
        if context.options.parameters is not None:
            # NSS then gives its struct without callbacks, not NULL.
            reply = module.C_Initialize(parameters=context.options.parameters, callbacks=False)
            check.expect_rv(reply, CKR.OK, because="to parameters without mutex callbacks")
        else:
            check.expect_rv(module.C_Initialize_NULL(), CKR.OK, because="to NULL, which is one thread by the standard")
        module.C_Finalize()


@scenario("load: parameters", "C_Initialize with a parameter string where the standard has pReserved", rules=("G2",))
def load_parameters(context: Context) -> None:
    """A module may refuse it, as the standard says; its users can then give it no parameters through NSS."""
    module = context.module
    with context.checking("G2") as check:
        if context.options.parameters is not None:
            check.not_applicable("--parameters is given: every scenario initialises with it")
        with check.setup("get the function list"):
            module.resolve().ok()
        reply = module.C_Initialize(parameters="")
        if not reply.is_ok:
            check.warn(
                f"module parameters are answered with {reply.name}: `modutil -add ... -string` makes it unloadable",
                reply,
                user='The module does not load once "parameters=" stands in its line of pkcs11.txt.',
            )
            return
        module.C_Finalize()


ROUNDS = 100
"""How often the race is run: a module that loses it once in ten times loses it here."""


@scenario("load: threads", "C_Initialize from two threads at once, as Firefox did", rules=("P9",))
def load_threads(context: Context) -> None:
    module = context.module
    with context.checking("P9") as check:
        with check.setup("initialise the module, end it and initialise it again with one thread"):
            module.resolve().ok()
            for _ in range(2):
                module.C_Initialize(parameters=context.options.parameters).ok()
                usual = module.C_GetSlotList(False, None)
                module.C_Finalize()
        for _ in range(ROUNDS):
            replies = _race(module, context.options.parameters)
            for reply in replies:
                check.expect_rv(reply, CKR.OK, CKR.CRYPTOKI_ALREADY_INITIALIZED, because="beside another thread's")
            check.expect(any(reply.is_ok for reply in replies), "none of two concurrent calls initialised it", *replies)
            check.expect_rv(module.C_GetSlotList(False, None), usual.rv, because="after two concurrent C_Initialize")
            module.C_Finalize()
            if check.judged:
                break


def _race(module: Module, parameters: str | None) -> list[Reply[None]]:
    replies: list[Reply[None]] = []
    barrier = threading.Barrier(2)

    def initialize() -> None:
        barrier.wait()
        replies.append(module.C_Initialize(parameters=parameters))

    threads = [threading.Thread(target=initialize) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies
