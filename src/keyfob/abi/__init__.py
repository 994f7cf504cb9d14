"""The C ABI: the only room that touches cffi. loader.c starts the interpreter and asks start.py for the tables."""
