"""The demo: NSS's own tools do a whole job with keys that never leave the token.

``python -m demo`` runs the steps of :mod:`demo.steps` one after the other against keyfob, or against another module as
a yardstick (``--softhsm``, ``--softoken``, ``--module``). ``tests/interop/nss`` runs the same steps as tests.
"""
