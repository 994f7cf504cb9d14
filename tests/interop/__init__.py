"""Interoperation tests: programs that other people wrote use the module, each through its own front door."""
