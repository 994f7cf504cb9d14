"""keyfob: a PKCS #11 token for NSS, written in Python."""

__version__ = "0.1.0"
