"""Mechanisms by themselves, without token or C ABI: known answers, and the standard's refusals."""
