"""The conformance checker: drives any PKCS #11 module exactly as NSS does, and says rule by rule what it found.

A client of modules: it knows spec/ and nothing of keyfob's own token. From below:

    rules/      the catalogue: what NSS expects, what a user sees of a breach, where in NSS that lives
    conduct     the rules X: a module neither crashes, hangs nor ends its host
    driver/     the C ABI by ctypes: one method per C_* function, and the record of every call
    client      NSS on top of it: START, logins, sessions, searches, in NSS's order
    context     what a scenario gets: module, nss, options, and `checking(RULE)`, which makes findings
    scenario    @scenario(name, title, rules=, needs=)
    scenarios/  what is tested: its docstring says how to write one
    child       the process of one scenario
    watch       starts it, watches over its time, makes findings of crashes and hangs
    runner      one scenario after the other, and cleaning up
    cleanup     removes what a run left on the token
    model       Verdict, Finding, ScenarioResult (with the timeline of calls), Report
    kinds, jobs what the findings mean: kinds of tokens, jobs that work
    report/     for terminals, as JSON (docs/check.md), as JUnit's XML

A run from Python:

    from keyfob.nss.options import Options
    from keyfob.nss.runner import run
    from keyfob.nss.scenarios import scenarios

    report = run(scenarios(), Options("/absolute/path.so", pin="1234", write=True))
    for result in report.results().values():
        print(result.rule.id, result.verdict, result.reason)

`report.scenarios[i].calls` is a scenario's timeline: {"number", "step", "function", "start" and "us" in microseconds,
"arguments", "rv", "rv_name", "out", maybe "thread", "process", "repeated", "note"}; findings cite calls by number.
report/as_json.document(report) holds everything, as docs/check.md describes it.
"""
