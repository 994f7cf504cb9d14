"""Where keyfob keeps its tokens, and its settings.

`KEYFOB_HOME=DIR` holds everything: DIR/config.toml, DIR/tokens, DIR/keyfob.log. Without it the XDG base directories do:
$XDG_CONFIG_HOME/keyfob/config.toml, $XDG_DATA_HOME/keyfob/tokens, $XDG_STATE_HOME/keyfob/keyfob.log. A missing file is
never an error; a faulty one is named in the log and its defaults hold.

    [log]
    level = "info"          # debug, info, warning, error, off

    [sessions]
    max = 1024              # CK_TOKEN_INFO.ulMaxSessionCount of each token (P26)

    [pin]                   # Argon2id for tokens made from now on
    memory_kib = 65536
    iterations = 3
"""

from __future__ import annotations

import os

from keyfob import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# What abi/ reads through the C library's getenv, so that a host's setenv() counts too.
VARIABLES = ("KEYFOB_HOME", "HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


class Config:
    """`tokens`: the folder of token files. Numbers are checked; what is out of range falls back with a log line."""

    __slots__ = ("file", "hardening", "log_file", "log_level", "max_sessions", "tokens")

    def __init__(self, file: str, tokens: str, log_file: str) -> None:
        self.file = file
        self.tokens = tokens
        self.log_file = log_file
        self.log_level = "info"
        self.max_sessions = 1024
        self.hardening: tuple[int, int] | None = None  # (memory in KiB, iterations), None: the store's default

    def make_folders(self) -> None:
        """The folders of tokens and log, 0700 where we make them."""
        for folder in (os.path.dirname(self.log_file), self.tokens):
            os.makedirs(folder, mode=0o700, exist_ok=True)


def load(environment: Mapping[str, str]) -> Config:
    """The configuration for these environment variables, with the log opened accordingly."""
    home = environment.get("KEYFOB_HOME")
    if home:
        config = Config(*(os.path.join(home, name) for name in ("config.toml", "tokens", "keyfob.log")))
    else:
        user = environment.get("HOME") or os.path.expanduser("~")

        def below(variable: str, default: str, name: str) -> str:
            return os.path.join(environment.get(variable) or os.path.join(user, default), "keyfob", name)

        config = Config(
            below("XDG_CONFIG_HOME", ".config", "config.toml"),
            below("XDG_DATA_HOME", ".local/share", "tokens"),
            below("XDG_STATE_HOME", ".local/state", "keyfob.log"),
        )
    problems = _read(config)
    log.configure(config.log_file, config.log_level)
    for problem in problems:
        log.line("warning", f"{config.file}: {problem}")
    return config


def _read(config: Config) -> list[str]:
    try:
        with open(config.file, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as problem:
        return [f"not read: {problem}"]
    import tomllib  # 2 ms: only where there is a file

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        return [f"not understood, defaults hold: {problem}"]
    problems: list[str] = []

    def number(table: str, key: str, default: int, low: int, high: int) -> int:
        section: Any = data.get(table, {})
        value = section.get(key, default) if isinstance(section, dict) else default
        if type(value) is int and low <= value <= high:
            return value
        problems.append(f"{table}.{key} must be a whole number from {low} to {high}")
        return default

    config.max_sessions = number("sessions", "max", config.max_sessions, 1, 1 << 20)
    if "pin" in data:
        config.hardening = (
            number("pin", "memory_kib", 65536, 8192, 1 << 22),
            number("pin", "iterations", 3, 1, 64),
        )
    level = data.get("log", {}).get("level", "info") if isinstance(data.get("log", {}), dict) else None
    if level in log.LEVELS:
        config.log_level = level
    else:
        problems.append(f"log.level must be one of {', '.join(log.LEVELS)}")
    return problems
