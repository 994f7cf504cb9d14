"""The C ABI: the only room that touches cffi. loader.c starts the interpreter and asks start.py for the tables."""

from keyfob import dependencies

dependencies.check(*dependencies.ALWAYS)  # before anything imports them

# First of ours: what is registered first runs last before a fork, when the stores' threads are already kept waiting.
from keyfob.abi import imports as imports  # noqa: E402
