"""Slots, tokens, logins, sessions, operations, objects and the rules of templates."""
