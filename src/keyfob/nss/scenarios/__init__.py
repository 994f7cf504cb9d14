"""The scenarios: one file for each part of NSS's life with a module, in the order in which they run.

To add one: write `scenarios/NAME.py` with functions under `@scenario`, and name the file in FILES below. Example:

    @scenario("find", "Searches as NSS makes them", rules=("SE3", "P23"), needs=("write",))
    def find(context: Context) -> None:
        nss, module = context.nss(), context.module       # START was done: what every NSS tool does first
        slot = context.ready()                            # the chosen slot, logged in; ends the scenario if impossible

        with context.step("certutil -L"):                 # names the calls in the timeline
            with context.checking("P23") as check:        # passes when nothing in the block fails
                with check.setup("make two certificates"):          # a failure here: the rule is "not tested"
                    session = nss.open_rw(slot)
                    module.C_CreateObject(session, [(CKA.CLASS, CKO.CERTIFICATE), ...]).ok()
                reply = module.C_FindObjectsInit(session, [(CKA.TOKEN, True), (CKA.CLASS, CKO.TRUST)])
                if check.expect_rv(reply, CKR.OK):                  # else it fails, with the call as evidence
                    found = module.C_FindObjects(session, 16).ok()  # anything but CKR_OK fails the rule, too
                    check.expect(not found, "objects of an unknown class were found", reply)
                nss.close(slot, session)

`context.checking(RULE)` gives a Check: `fail(saw, *replies, expects=, nss=, user=)`, `warn(...)`, `expect(condition,
saw, *replies)`, `expect_rv(reply, *codes)`, `passed(saw)`, `setup(what)`; `not_applicable(reason)` and
`not_tested(reason)` end the block. `saw` is a clause about this module ("C_Login answered CKR_GENERAL_ERROR to a wrong
PIN"); what NSS does, expects and shows its user, and where that lives, comes from the catalogue (nss/rules) unless a
keyword narrows it. A rule may be checked in several blocks and scenarios: the worst verdict counts. A failure needs
evidence: pass the replies.

- Write only in scenarios with `needs=("write",)`; label objects LABEL (nss/options.py) where NSS's template has
  one. Token objects are removed after the run by nss/cleanup.py, which knows them from the templates and from what the
  scenario reads or sets (driver/footprints.py); remove them yourself as well, as a user's program would.
- A call that needs CKR_OK: `module.C_X(...).ok()`. Outside of `checking` it ends the scenario, and its other rules are
  "not tested". A rule named in `rules=` without a finding at the end is "not tested"; one not named is refused.
- `context.fact(name, value)` says something of the module that reports show or that nss/jobs.py judges jobs by;
  `context.known` holds the facts of earlier scenarios.
- One process per scenario: a rule whose breach may crash or hang the module belongs into one of its own, or last.
- Loops of thousands: `with module.recorder.quietly("open and close 10 000 sessions"):` only counts calls.
- PINs: `context.login(slot)`, `context.wrong_pin(slot)`, and after any other use of a given PIN
  `context.judge_pin(reply, "pin")`: a refused PIN is never tried twice.
- `nss.login/open_ro/open_rw/close/find/find_all/find_objects/search/read/read_one/read_number/read_flag` are NSS's own
  ways (nss/client.py); `module.C_*` are the raw calls (driver/module.py), `Mechanism(CKM.X, params)` their mechanisms;
  `context.forked(function)` runs in a forked process. Threads of a scenario may call the module at the same time.
- Only spec, nss and the standard library may be imported.
"""

from __future__ import annotations

import importlib

from keyfob.nss.scenario import Scenario

FILES: tuple[str, ...] = (
    "load",
    "slots",
    "mechs",
    "first_pin",
    "login",
    "find",
    "certificates",
    "sign",
    "keygen",
    "transfer",
    "pkcs12",
    "trust",
    "decrypt",
    "server",
    "multipurpose",
    "accelerator",
    "sessions",
    "limits",
    "events",
    "removal",
)
"""The files, in the order of their run.

`first_pin` erases the token (--init): it comes before all that use one. `sign` comes before those that prove a key by
its signature.
"""


def scenarios() -> tuple[Scenario, ...]:
    """Every scenario of every file, in order."""
    found: list[Scenario] = []
    for name in FILES:
        held = vars(importlib.import_module(f"{__name__}.{name}"))
        found += [value for value in held.values() if isinstance(value, Scenario)]
    return tuple(found)
