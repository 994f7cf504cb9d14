"""Watching a program use its module: libkeyfob-trace.so (C, in this folder) writes calls down, decode.py reads them."""
