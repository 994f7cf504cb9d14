"""Where keyfob keeps its tokens, and its settings.

`KEYFOB_HOME=DIR` holds everything: DIR/config.toml, DIR/tokens, DIR/keyfob.log. Without it the XDG base directories do:
$XDG_CONFIG_HOME/keyfob/config.toml, $XDG_DATA_HOME/keyfob/tokens, $XDG_STATE_HOME/keyfob/keyfob.log. A missing file is
never an error; a faulty one is named in the log and its defaults hold.

`KEYFOB_STORE=postgresql://...` keeps tokens in a PostgreSQL database instead of the folder, see docs/postgresql.md.

    [log]
    level = "info"          # debug, info, warning, error, off

    [sessions]
    max = 1024              # CK_TOKEN_INFO.ulMaxSessionCount of each token (P26)
    max_objects = 32768     # session objects of each token, and how much their values may have
    max_object_mib = 64

    [pin]
    memory_kib = 65536      # Argon2id, for tokens made from now on
    iterations = 3
    min_length = 4          # of PINs that are set from now on, in bytes (CK_TOKEN_INFO.ulMinPinLen)
    delay = true            # wrong PINs in a row are answered later and later

    [policy]
    strict = false          # true: keys that hide their value have one role for life (docs/policy.md)

    [pinentry]              # what asks for the PIN of a token with protected_path
    program = "pinentry"
    timeout = 60            # seconds

    [store]
    url = "postgresql:///keyfob"    # KEYFOB_STORE goes before it
    patience = 10           # seconds for which calls wait for a server that is away
    max_age_ms = 0          # for so long what was read counts as current without asking the server

    [audit]                 # token/audit.py
    enabled = true
    file = "/var/log/keyfob-audit.jsonl"    # keyfob-audit.jsonl beside the log without it
    max_kib = 1024          # then it is renamed to *.1
    keep = 4                # such files are kept

    [token."mail"]          # for the token of this label only
    max_sessions = 1        # instead of [sessions] max
    write_protected = true  # CKF_WRITE_PROTECTED (S11)
    protected_path = true   # CKF_PROTECTED_AUTHENTICATION_PATH: [pinentry] asks for the PIN, not the client (P31)
    hide_mechanisms = ["CKM_RSA_PKCS_KEY_PAIR_GEN"]  # not offered: for trying the fall-backs of clients (K8)
    pepper = "credential:pepper"    # where the file is that PINs need beside themselves (store/pepper.py); or a list
    pin_file = "/run/secrets/pin"   # opens the token instead of a login (token/pin_file.py)

The last two are paths from the root, from ~ or from the folder of config.toml, or `credential:NAME`, which stands for
the file NAME in $CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import os

from keyfob import environment, files, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# What counts of the environment (environment.py).
VARIABLES = (
    *("KEYFOB_HOME", "HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "KEYFOB_STORE"),
    "CREDENTIALS_DIRECTORY",
)


class TokenSettings:
    """What the configuration says of one token. `hide_mechanisms`: names or numbers of what it does not offer.

    `peppers` and `pin_file`: where these files are (store/secret_file.py); empty for none. The first pepper is the one
    that PINs get.
    """

    __slots__ = ("hide_mechanisms", "max_sessions", "peppers", "pin_file", "protected_path", "write_protected")

    def __init__(self, max_sessions: int) -> None:
        self.max_sessions = max_sessions
        self.write_protected = False
        self.protected_path = False
        self.peppers: tuple[str, ...] = ()
        self.pin_file = ""
        self.hide_mechanisms: tuple[str | int, ...] = ()

    @property
    def pepper(self) -> str:
        """Of new PINs; empty for none."""
        return self.peppers[0] if self.peppers else ""


class Config:
    """`tokens`: the folder of token files; `store`: the URL of a server that has the tokens instead, or empty.

    Numbers are checked; what is out of range falls back with a log line.
    """

    __slots__ = (
        "audit",
        "audit_file",
        "audit_keep",
        "audit_max_kib",
        "by_label",
        "credentials",
        "delay",
        "file",
        "hardening",
        "log_file",
        "log_level",
        "max_age_ms",
        "max_object_mib",
        "max_objects",
        "max_sessions",
        "min_pin",
        "patience",
        "pinentry",
        "pinentry_timeout",
        "store",
        "strict",
        "tokens",
    )

    def __init__(self, file: str, tokens: str, log_file: str) -> None:
        self.file = file
        self.tokens = tokens
        self.log_file = log_file
        self.log_level = "info"
        self.audit = True
        self.audit_file = os.path.join(os.path.dirname(log_file), "keyfob-audit.jsonl")
        self.audit_max_kib = 1024
        self.audit_keep = 4
        self.max_sessions = 1024
        self.max_objects = 32768
        self.max_object_mib = 64
        self.hardening: tuple[int, int] | None = None  # (memory in KiB, iterations), None: the store's default
        self.min_pin = 4
        self.delay = True
        self.store = ""
        self.strict = False
        self.patience = 10  # seconds
        self.max_age_ms = 0
        self.pinentry = "pinentry"
        self.pinentry_timeout = 60  # seconds
        self.by_label: dict[str, TokenSettings] = {}
        self.credentials = ""  # the folder of `credential:NAME`

    def token(self, label: str) -> TokenSettings:
        """The settings of the token with this label."""
        return self.by_label.get(label) or TokenSettings(self.max_sessions)

    def again(self) -> Config:
        """What the file says by now, for a program that has been running for a while."""
        found = Config(self.file, self.tokens, self.log_file)
        found.credentials = self.credentials
        _read(found)
        return found

    @property
    def witness(self) -> str:
        """The folder where this machine remembers how far its tokens had come (store/witness.py)."""
        return os.path.join(os.path.dirname(self.log_file), "seen")

    def witness_of(self, slot_id: int) -> str:
        """The same for the removable tokens of a slot.

        Anybody's stick can bear the serial number of a token of the user's, so what is noted of sticks is not believed
        of others: ten wrong PINs there would lock the user's PIN.
        """
        return os.path.join(self.witness, f"slot-{slot_id}")

    def doubt(self) -> str:
        """Why the tokens in the folder may be somebody else's; empty for no reason."""
        return files.doubt(self.tokens, strangers=not files.is_master())

    def make_folders(self) -> None:
        """The folders of tokens and log, 0700 where we make them."""
        for folder in (os.path.dirname(self.log_file), self.tokens):
            files.make_folder(folder)


def present(problems: list[str] | None = None) -> Config:
    """The configuration for this process's environment; `problems`: see `load`."""
    return load(environment.several(VARIABLES), problems)


def load(variables: Mapping[str, str], problems: list[str] | None = None) -> Config:
    """The configuration for these environment variables, with the log opened accordingly.

    What is wrong with the file goes to the log, and to `problems` for those who want to tell people.
    """
    home = variables.get("KEYFOB_HOME")
    if home:
        config = Config(*(os.path.join(home, name) for name in ("config.toml", "tokens", "keyfob.log")))
    else:
        user = environment.home(variables)

        def below(variable: str, default: str, name: str) -> str:
            return os.path.join(variables.get(variable) or os.path.join(user, default), "keyfob", name)

        config = Config(
            below("XDG_CONFIG_HOME", ".config", "config.toml"),
            below("XDG_DATA_HOME", ".local/share", "tokens"),
            below("XDG_STATE_HOME", ".local/state", "keyfob.log"),
        )
    config.credentials = variables.get("CREDENTIALS_DIRECTORY") or ""
    found = _read(config)
    config.store = variables.get("KEYFOB_STORE") or config.store
    log.configure(config.log_file, config.log_level)
    for problem in found:
        log.line("warning", f"{config.file}: {problem}")
    if problems is not None:
        problems.extend(found)
    return config


def _read(config: Config) -> list[str]:
    try:
        text = files.read_believed(config.file, follow=True).decode()
    except FileNotFoundError:
        return []
    except OSError as problem:
        return [f"not read: {problem.strerror}"]
    except UnicodeDecodeError as problem:
        return [f"not read: {problem}"]
    if doubted := files.doubt(os.path.dirname(config.file)):
        return [f"not read: {doubted}"]
    import tomllib  # 2 ms: only where there is a file

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        return [f"not understood, defaults hold: {problem}"]
    return _Reader(config, data).read()


class _Reader:
    """Takes what is right from the tables of config.toml, and notes what is wrong."""

    def __init__(self, config: Config, data: dict[str, Any]) -> None:
        self.config = config
        self.data = data
        self.problems: list[str] = []

    def read(self) -> list[str]:
        config = self.config
        sessions = self.table(self.data, "sessions", ("max", "max_objects", "max_object_mib"))
        config.max_sessions = self.number(sessions, "sessions.max", config.max_sessions, 1, 1 << 20)
        config.max_objects = self.number(sessions, "sessions.max_objects", config.max_objects, 1, 1 << 24)
        config.max_object_mib = self.number(sessions, "sessions.max_object_mib", config.max_object_mib, 1, 1 << 16)
        pin = self.table(self.data, "pin", ("memory_kib", "iterations", "min_length", "delay"))
        if "memory_kib" in pin or "iterations" in pin:
            config.hardening = (
                self.number(pin, "pin.memory_kib", 65536, 8192, 1 << 22),
                self.number(pin, "pin.iterations", 3, 1, 64),
            )
        config.min_pin = self.number(pin, "pin.min_length", config.min_pin, 4, 255)
        config.delay = self.truth(pin, "pin.delay", default=config.delay)
        policy = self.table(self.data, "policy", ("strict",))
        config.strict = self.truth(policy, "policy.strict", default=config.strict)
        pinentry = self.table(self.data, "pinentry", ("program", "timeout"))
        config.pinentry = self.text(pinentry, "pinentry.program", config.pinentry)
        config.pinentry_timeout = self.number(pinentry, "pinentry.timeout", config.pinentry_timeout, 1, 3600)
        level = self.text(self.table(self.data, "log", ("level",)), "log.level", config.log_level)
        if level in log.LEVELS:
            config.log_level = level
        else:
            self.problems.append(f"log.level must be one of {', '.join(log.LEVELS)}")
        store = self.table(self.data, "store", ("url", "patience", "max_age_ms"))
        config.store = self.text(store, "store.url", config.store) if "url" in store else config.store
        config.patience = self.number(store, "store.patience", config.patience, 0, 600)
        config.max_age_ms = self.number(store, "store.max_age_ms", config.max_age_ms, 0, 60_000)
        audit = self.table(self.data, "audit", ("enabled", "file", "max_kib", "keep"))
        config.audit = self.truth(audit, "audit.enabled", default=config.audit)
        config.audit_file = self.text(audit, "audit.file", config.audit_file)
        config.audit_max_kib = self.number(audit, "audit.max_kib", config.audit_max_kib, 1, 1 << 20)
        config.audit_keep = self.number(audit, "audit.keep", config.audit_keep, 1, 1000)
        for label in self.table(self.data, "token", None):
            config.by_label[label] = self.token(label)
        return self.problems

    def token(self, label: str) -> TokenSettings:
        settings = TokenSettings(self.config.max_sessions)
        name = f'token."{label}"'
        known = ("max_sessions", "write_protected", "protected_path", "hide_mechanisms", "pepper", "pin_file")
        table = self.table(self.data["token"], label, known, name)
        settings.max_sessions = self.number(table, f"{name}.max_sessions", settings.max_sessions, 1, 1 << 20)
        settings.write_protected = self.truth(table, f"{name}.write_protected", default=False)
        settings.protected_path = self.truth(table, f"{name}.protected_path", default=False)
        settings.hide_mechanisms = self.mechanisms(table, f"{name}.hide_mechanisms")
        settings.peppers = self.locations(table, f"{name}.pepper")
        settings.pin_file = self.location(table, f"{name}.pin_file")
        return settings

    def table(
        self, data: dict[str, Any], key: str, known: tuple[str, ...] | None, name: str | None = None
    ) -> dict[str, Any]:
        """A table, empty where there is none; `known`: the keys it may have, None for any."""
        found = data.get(key, {})
        if not isinstance(found, dict):
            self.problems.append(f"{name or key} must be a table")
            return {}
        if known is not None:
            self.problems.extend(f"{name or key}.{other} is not a setting" for other in found if other not in known)
        return found

    def number(self, table: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
        value = table.get(name.rpartition(".")[2], default)
        if type(value) is int and low <= value <= high:
            return value
        self.problems.append(f"{name} must be a whole number from {low} to {high}")
        return default

    def truth(self, table: dict[str, Any], name: str, *, default: bool) -> bool:
        value = table.get(name.rpartition(".")[2], default)
        if isinstance(value, bool):
            return value
        self.problems.append(f"{name} must be true or false")
        return default

    def text(self, table: dict[str, Any], name: str, default: str) -> str:
        value = table.get(name.rpartition(".")[2], default)
        if isinstance(value, str) and value:
            return value
        self.problems.append(f"{name} must be a text")
        return default

    def locations(self, table: dict[str, Any], name: str) -> tuple[str, ...]:
        """One, or a list of them."""
        key = name.rpartition(".")[2]
        found = table.get(key)
        each = found if isinstance(found, list) else [found] if key in table else []
        located = (self.location({key: one}, name) for one in each)
        return tuple(location for location in located if location)

    def location(self, table: dict[str, Any], name: str) -> str:
        """Of a file with a secret; empty where none is named."""
        if name.rpartition(".")[2] not in table:
            return ""
        found = self.text(table, name, "")
        if not found or found.startswith("credential:"):
            return found
        return os.path.join(os.path.dirname(self.config.file), environment.expanded(found))

    def mechanisms(self, table: dict[str, Any], name: str) -> tuple[str | int, ...]:
        wanted = table.get(name.rpartition(".")[2], [])
        if isinstance(wanted, list) and all(isinstance(item, str) or type(item) is int for item in wanted):
            return tuple(wanted)
        self.problems.append(f"{name} must be a list of names (CKM_...) or numbers")
        return ()
