"""Thunderbird driven without a person: messages written, sent to a server of the test's own, and shown."""
