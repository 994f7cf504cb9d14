"""The C ABI: the only room that touches cffi. loader.c starts the interpreter and asks start.py for the tables."""

# First of all: what is registered first runs last before a fork, when the stores' threads are already kept waiting.
from keyfob.abi import imports as imports
