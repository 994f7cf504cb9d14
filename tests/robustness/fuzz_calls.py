"""Writes fuzz_calls.h: how the fuzzer calls each function of PKCS #11 v3.2, from the standard's own tables.

An argument is drawn by its C type and its name: a pointer and the length behind it belong together, a pointer before a
CK_ULONG_PTR is room for an output. Mechanism parameters are filled field by field, by the same rule.
"""

from __future__ import annotations

import json
from pathlib import Path

from keyfob.mechanisms import INDEX, lookup
from keyfob.spec.constants import CKA, CKF, CKK, CKM
from keyfob.spec.functions import FUNCTIONS
from keyfob.spec.parameters import LAYOUTS, PARAMETER_OF
from keyfob.token.templates import KINDS

STRUCTS: dict[str, list[list[str]]] = json.loads(
    (Path(__file__).resolve().parents[2] / "facts" / "structs.json").read_text(encoding="utf-8")
)
Arguments = tuple[tuple[str, str], ...]

# C_Initialize and C_Finalize are the host's; the others would lock or erase the token that the calls are made on.
LOGINS = ("C_Login", "C_LoginUser")
LEFT_OUT = ("C_Initialize", "C_Finalize", "C_InitToken", "C_InitPIN", "C_SetPIN")
# How often a function is called: less where it takes long, or takes away what the other calls need.
USUAL = 200
WEIGHTS = {
    "C_GenerateKeyPair": 40,
    "C_Login": 40,
    "C_LoginUser": 40,
    "C_CloseSession": 10,
    "C_DestroyObject": 30,
    "C_Logout": 1,
    "C_CloseAllSessions": 1,
}
MAY_FAIL = ("C_GetInterface",)  # CKR_FUNCTION_FAILED is its answer to a name of nothing
BYTES = ("CK_BYTE_PTR", "CK_UTF8CHAR_PTR", "CK_VOID_PTR")
# The mechanisms of no family that are drawn too: known to the standard, and made up.
STRANGE = (CKM.DSA, CKM.IKE_PRF_DERIVE, CKM.X3DH_INITIALIZE, CKM.SP800_108_COUNTER_KDF, 0x7777)
MECHANISMS = tuple(dict.fromkeys([*INDEX, *PARAMETER_OF, *STRANGE]))
# Attributes that decide what a template makes are drawn more often than the others.
WEIGHTY = (CKA.CLASS, CKA.KEY_TYPE, CKA.VALUE, CKA.VALUE_LEN, CKA.EC_PARAMS, CKA.MODULUS_BITS, CKA.TOKEN)


# The functions that take a mechanism and a key: most of the time those fit each other.
FLAGS = {
    "C_EncryptInit": CKF.ENCRYPT,
    "C_DecryptInit": CKF.DECRYPT,
    "C_SignInit": CKF.SIGN,
    "C_SignRecoverInit": CKF.SIGN_RECOVER,
    "C_VerifyInit": CKF.VERIFY,
    "C_VerifyRecoverInit": CKF.VERIFY_RECOVER,
    "C_VerifySignatureInit": CKF.VERIFY,
    "C_WrapKey": CKF.WRAP,
    "C_UnwrapKey": CKF.UNWRAP,
    "C_DeriveKey": CKF.DERIVE,
    "C_GenerateKey": CKF.GENERATE,
    "C_GenerateKeyPair": CKF.GENERATE_KEY_PAIR,
    "C_DigestInit": CKF.DIGEST,
}
OF_PUBLIC = CKF.ENCRYPT | CKF.VERIFY | CKF.VERIFY_RECOVER | CKF.WRAP
PAIRS = {CKK.RSA: "RSA", CKK.EC: "EC", CKK.EC_EDWARDS: "EDWARDS", CKK.EC_MONTGOMERY: "MONTGOMERY"}
SECRETS = {CKK.AES: "OF_AES", CKK.GENERIC_SECRET: "OF_GENERIC"}


def header() -> str:
    """fuzz_calls.h."""
    bodies = [_call(name, arguments) for name, (_, arguments) in FUNCTIONS.items() if name not in LEFT_OUT]
    rows = [
        f'    {{"{name}", call_{name}, {int(name in MAY_FAIL)}}},'
        for name in FUNCTIONS
        if name not in LEFT_OUT
        for _ in range(WEIGHTS.get(name, USUAL))
    ]
    return "\n".join(
        [
            "/* Written by fuzz_calls.py. */",
            *_attributes(),
            *_parameters(),
            *_mechanism(),
            NEWEST,
            *bodies,
            "struct call { const char *name; CK_RV (*make)(struct fuzzer *); int may_fail; };",
            "static const struct call CALLS[] = {",
            *rows,
            "};",
            "static _Atomic unsigned long answers[sizeof CALLS / sizeof CALLS[0]][2];",
            "",
        ]
    )


NEWEST = """
static CK_FUNCTION_LIST_3_2 *newest;

static void load_newest(const char *module)
{
    CK_INTERFACE *interface;
    CK_RV (*get)(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG);

    load(module);
    get = (__typeof__(get))dlsym(dlopen(module, RTLD_NOW), "C_GetInterface");
    OK(get((CK_BYTE *)"PKCS 11", NULL, &interface, 0));
    newest = interface->pFunctionList;
}
"""


def _attributes() -> list[str]:
    rows = []
    for attribute, kind in sorted(KINDS.items()):
        letter = {"bool": "b", "ulong": "u", "template": "n"}.get(kind, "o")
        rows += [f"    {{{attribute:#x}UL, '{letter}'}},"] * (12 if attribute in WEIGHTY else 1)
    return [
        "static const struct attribute attributes[] = {",
        *rows,
        "};",
        "static const CK_ULONG attributes_known = sizeof attributes / sizeof attributes[0];",
    ]


def _parameters() -> list[str]:
    """For each struct a function that fills one."""
    lines = []
    for struct in sorted({LAYOUTS[layout][0] for layout in PARAMETER_OF.values()}, key=lambda name: "WRAP" in name):
        fields = STRUCTS[struct]
        lengths = {name: kind for name, kind in fields if kind == "CK_ULONG"}
        lines += [
            f"static void *make_{struct}(struct fuzzer *f, CK_ULONG *size)",
            "{",
            f"    {struct} *p = buffer(f, sizeof *p);",
            "    *size = sizeof *p;",
        ]
        for name, kind in fields:
            length = _length_of(name, lengths)
            if kind in BYTES:
                lines.append(f"    {{ CK_ULONG n = draw(f, 65); p->{name} = (void *)or_null(f, buffer(f, n));")
                if length is not None:
                    bits = " * 8" if length.endswith("Bits") else ""
                    lines.append(f"      p->{length} = chance(f, 97) ? n{bits} : 0;")
                lines.append("    }")
            elif kind == "CK_RSA_PKCS_OAEP_PARAMS_PTR":
                lines.append(f"    {{ CK_ULONG n; p->{name} = or_null(f, make_CK_RSA_PKCS_OAEP_PARAMS(f, &n)); }}")
            elif kind.endswith("_PTR"):
                raise ValueError(f"{struct}.{name}: {kind}")
            elif "[" in kind:
                continue  # noise already
            elif kind == "CK_BBOOL":
                lines.append(f"    p->{name} = (CK_BYTE)draw(f, 3);")
            elif kind == "CK_OBJECT_HANDLE":
                lines.append(f"    p->{name} = handle_(f);")
            elif name.startswith(("iterations", "ulIteration")):
                lines.append(f"    p->{name} = rounds(f);")
            elif not any(_length_of(other, lengths) == name for other, of in fields if of in BYTES):
                lines.append(f"    p->{name} = value(f);")
        lines += ["    return p;", "}"]
    return lines


def _length_of(pointer: str, lengths: dict[str, str]) -> str | None:
    """The field that holds the length of what a pointer field points to."""
    stem = pointer.removeprefix("p")
    candidates = (
        f"ul{stem}Len",
        f"ul{stem}Length",
        "ulLen" if stem == "Data" else "",
        "length" if stem == "Data" else "",
    )
    return next((name for name in candidates if name in lengths), None)


def _mechanism() -> list[str]:
    """A mechanism that the module offers, with its own kind of parameter as a rule."""
    cases: list[str] = []
    for mechanism in MECHANISMS:
        struct = LAYOUTS[PARAMETER_OF[mechanism]][0] if mechanism in PARAMETER_OF else None
        made = f"make_{struct}(f, &m->ulParameterLen)" if struct else "plain_parameter(f, &m->ulParameterLen)"
        cases.append(f"    case {len(cases)}: m->mechanism = {mechanism:#x}UL; m->pParameter = {made}; break;")
    return [
        *_fitting(),
        "static void *plain_parameter(struct fuzzer *f, CK_ULONG *size)",
        "{",
        "    *size = chance(f, 40) ? 0 : chance(f, 80) ? 16 : length(f);",
        "    if (*size == 8) { CK_ULONG *p = buffer(f, 8); *p = handle_(f); return p; }",
        "    return *size == 0 ? NULL : buffer(f, *size);",
        "}",
        "/* For a function with a CKF_* flag one that has it, as a rule; `places`: where keys for it are. */",
        "static CK_MECHANISM *mechanism_(struct fuzzer *f, CK_ULONG flag, unsigned *places)",
        "{",
        "    CK_MECHANISM *m = buffer(f, sizeof *m);",
        f"    CK_ULONG chosen = flag != 0 && chance(f, 80) ? fitting(f, flag, places) : draw(f, {len(cases)});",
        "    switch (chosen) {",
        *cases,
        "    }",
        "    if (chance(f, 2)) m->ulParameterLen = length(f) < m->ulParameterLen ? m->ulParameterLen - 1 : 0;",
        "    if (chance(f, 2)) m->pParameter = NULL;",
        "    return or_null(f, m);",
        "}",
    ]


def _fitting() -> list[str]:
    """The table of what fits: a flag, the number of a mechanism, and where its keys are."""
    rows = []
    for flag in sorted(set(FLAGS.values())):
        half = "PUBLIC" if flag & OF_PUBLIC else "PRIVATE"
        for number, mechanism in enumerate(MECHANISMS):
            if mechanism not in INDEX or flag not in lookup(mechanism).operations:
                continue
            types = lookup(mechanism).key_types
            places = [f"OF_{PAIRS[each]}_{half}" for each in types if each in PAIRS]
            places += [SECRETS[each] for each in types if each in SECRETS]
            rows.append(f"    {{{flag}, {number}, {' | '.join(places) or '0xffff'}}},")
    return [
        "static const struct { CK_ULONG flag, number; unsigned places; } FITTING[] = {",
        *rows,
        "};",
        "static CK_ULONG fitting(struct fuzzer *f, CK_ULONG flag, unsigned *places)",
        "{",
        "    size_t i = draw(f, MANY(FITTING));",
        "    while (FITTING[i].flag != flag) i = (i + 1) % MANY(FITTING);",
        "    *places = FITTING[i].places;",
        "    return FITTING[i].number;",
        "}",
    ]


def _call(name: str, arguments: Arguments) -> str:
    """The function that draws the arguments of one call, makes it, and keeps the handles that come of it."""
    before: list[str] = []
    given: list[str] = []
    after: list[str] = []
    for i, (argument, kind) in enumerate(arguments):
        following = arguments[i + 1][1] if i + 1 < len(arguments) else ""
        before += _drawn(name, argument, kind, following)
        given.append(argument)
        if kind == "CK_OBJECT_HANDLE_PTR" and name != "C_FindObjects":
            after.append(f"    if (rv == CKR_OK) keep(f, handles, {argument});")
        elif kind == "CK_SESSION_HANDLE_PTR":
            after.append(f"    if (rv == CKR_OK) keep(f, sessions, {argument});")
        elif (name, argument) in STASHES:
            size = arguments[i + 1][0]
            after.append(f"    if (rv == CKR_OK) stash(f, {STASHES[name, argument]}, {argument}, {size});")
    if name.endswith("Init") and "hSession" in given:
        kind = name.removeprefix("C_").removesuffix("Init")
        after.append(f'    if (rv == CKR_OK) {{ f->begun = "{kind}"; f->favourite = hSession; }}')
    return "\n".join(
        [
            f"static CK_RV call_{name}(struct fuzzer *f)",
            "{",
            "    CK_RV rv;",
            *before,
            f"    rv = newest->{name}({', '.join(given)});",
            *after,
            "    return rv;",
            "}",
        ]
    )


def _drawn(name: str, argument: str, kind: str, following: str) -> list[str]:  # noqa: PLR0911, PLR0912 - one per type
    """The lines that declare and fill one argument."""
    by_kind = {
        "CK_SESSION_HANDLE": "CK_ULONG {0} = session_(f);",
        "CK_SLOT_ID": "CK_ULONG {0} = slot_(f);",
        "CK_MECHANISM_TYPE": "CK_ULONG {0} = value(f);",
        "CK_SESSION_VALIDATION_FLAGS_TYPE": "CK_ULONG {0} = value(f);",
        "CK_USER_TYPE": "CK_ULONG {0} = draw(f, 4);",
        "CK_BBOOL": "CK_BYTE {0} = (CK_BYTE)draw(f, 3);",
        "CK_NOTIFY": "void *{0} = NULL;",
        "CK_INTERFACE_PTR_PTR": "CK_INTERFACE **{0} = or_null(f, buffer(f, sizeof *{0}));",
        "CK_FUNCTION_LIST_PTR_PTR": "CK_FUNCTION_LIST **{0} = or_null(f, buffer(f, sizeof *{0}));",
    }
    if kind == "CK_MECHANISM_PTR":
        flag = FLAGS.get(name, 0)
        return [f"    unsigned places = 0; CK_MECHANISM *{argument} = mechanism_(f, {flag}, &places);"]
    if kind == "CK_OBJECT_HANDLE":
        if name == "C_SetOperationState":
            return [f"    CK_ULONG {argument} = chance(f, 60) ? 0 : handle_(f);"]
        fits = name in FLAGS and (argument == "hKey") == (name != "C_WrapKey")
        fits = fits or argument in ("hWrappingKey", "hUnwrappingKey", "hBaseKey")
        return [f"    CK_ULONG {argument} = {'places != 0 ? key_of(f, places) : ' if fits else ''}handle_(f);"]
    if kind in by_kind:
        return ["    " + by_kind[kind].format(argument)]
    if kind == "CK_FLAGS":
        # C_WaitForSlotEvent must not wait; a session is serial.
        fixed = {"C_WaitForSlotEvent": "1", "C_OpenSession": "4 | (chance(f, 80) ? 2 : 0) | (chance(f, 3) ? 8 : 0)"}
        return [f"    CK_ULONG {argument} = {fixed.get(name, '0')};"]
    if kind == "CK_ATTRIBUTE_PTR":
        output = int(name == "C_GetAttributeValue")
        if name in ("C_UnwrapKey", "C_DeriveKey", "C_CreateObject") or argument == "pPublicKeyTemplate":
            pair = int(argument == "pPublicKeyTemplate")
            return [
                f"    CK_ULONG n_{argument}; CK_ATTRIBUTE *{argument} = chance(f, 60)",
                f"        ? good_template(f, &n_{argument}, {pair}) : template_(f, &n_{argument}, 0, 2);",
            ]
        return [f"    CK_ULONG n_{argument}; CK_ATTRIBUTE *{argument} = template_(f, &n_{argument}, {output}, 2);"]
    if name in LOGINS and argument == "pPin":  # wrong ones would lock it
        return [f"    CK_BYTE *{argument} = or_null(f, (void *)user_pin);"]
    if kind == "CK_ULONG":
        return [f"    CK_ULONG {argument} = {_length(name, argument)};"]
    if kind in ("CK_BYTE_PTR", "CK_UTF8CHAR_PTR", "CK_VOID_PTR"):
        lines = [f"    CK_ULONG n_{argument} = length(f);"]
        if following == "CK_ULONG_PTR":
            lines[0] = f"    CK_ULONG n_{argument} = chance(f, 70) ? ROOM / 2 : length(f);"
        pointer = f"or_null(f, buffer(f, n_{argument}))"
        if following == "CK_ULONG_PTR":
            pointer = f"chance(f, 80) ? buffer(f, n_{argument}) : NULL"
        elif argument in ("pReserved", "pRserved", "pApplication"):
            pointer = "NULL"
        elif argument in ("pInterfaceName", "pFunctionName"):
            pointer = 'chance(f, 80) ? (void *)"PKCS 11" : NULL'
        elif (name, argument) in STASHED:
            pointer = f"stashed(f, {STASHED[name, argument]}, buffer(f, n_{argument}), &n_{argument})"
        return [*lines, f"    void *{argument} = {pointer}; (void)n_{argument};"]
    if kind == "CK_ULONG_PTR":
        return [f"    CK_ULONG *{argument} = or_null(f, buffer(f, 8));", *_room(name, argument)]
    struct = kind.removesuffix("_PTR")
    plain = {"CK_OBJECT_HANDLE", "CK_SLOT_ID", "CK_MECHANISM_TYPE", "CK_SESSION_HANDLE", "CK_FLAGS"}
    if struct in plain:
        size = f"    CK_ULONG n_{argument} = draw(f, 40) + 1;"
        return [size, f"    CK_ULONG *{argument} = or_null(f, buffer(f, n_{argument} * 8));"]
    if struct == "CK_INTERFACE":
        size = f"    CK_ULONG n_{argument} = draw(f, 5);"
        return [
            size,
            f"    {struct} *{argument} = chance(f, 80) ? buffer(f, n_{argument} * sizeof *{argument}) : NULL;",
        ]
    if struct == "CK_ASYNC_DATA":
        return [f"    {struct} *{argument} = or_null(f, memset(buffer(f, sizeof *{argument}), 0, sizeof *{argument}));"]
    return [f"    {struct} *{argument} = or_null(f, buffer(f, sizeof *{argument}));"]


LISTS = ("CK_SLOT_ID_PTR", "CK_MECHANISM_TYPE_PTR", "CK_INTERFACE_PTR")
# What one call makes and another takes.
STASHES = {("C_GetOperationState", "pOperationState"): 0, ("C_WrapKey", "pWrappedKey"): 1}
STASHED = {("C_SetOperationState", "pOperationState"): 0, ("C_UnwrapKey", "pWrappedKey"): 1}
LENGTHS_OF = {
    "ulPinLen": "n_pPin",
    "ulUsernameLen": "n_pUsername",
    "ulRandomLen": "n_RandomData",
    "ulMaxObjectCount": "n_phObject",
    "ulPublicKeyAttributeCount": "n_pPublicKeyTemplate",
    "ulPrivateKeyAttributeCount": "n_pPrivateKeyTemplate",
    "ulCount": "n_pTemplate",
    "ulAttributeCount": "n_pTemplate",
    "ulData": "n_pData",
    "ulID": "value(f)",
}


def _length(name: str, argument: str) -> str:
    if name in LOGINS and argument == "ulPinLen":
        return "strlen(user_pin)"
    if argument in LENGTHS_OF:
        return LENGTHS_OF[argument]
    return "n_p" + argument.removeprefix("ul").removesuffix("Len")


def _room(name: str, argument: str) -> list[str]:
    """How much room there is, as the caller says."""
    lists = [other for other, kind in FUNCTIONS[name][1] if kind in LISTS]
    if argument == "pulCount":
        room = f"n_{lists[0]}"
    elif argument in ("pulObjectCount", "pulID", "pulSize"):
        room = "0"
    else:
        room = "n_p" + argument.removeprefix("pul").removesuffix("Len")
    return [f"    if ({argument} != NULL) *{argument} = {room};"]
