"""The C ABI: the only place that knows cffi. Every other room sees Python values."""

# First of all: what is registered first runs last before a fork, when the stores' threads are already kept waiting.
from keyfob.abi import imports as imports  # noqa: PLC0414
