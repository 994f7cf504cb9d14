"""A program that guesses a PIN: `guess MODULE RIGHT MOST`, with a token in KEYFOB_HOME.

Gives MOST wrong PINs, or until the answer is another than CKR_PIN_INCORRECT, and then the right one. Prints as JSON how
many
were answered as wrong (wrong), the answer that ended it (last), and that to the right PIN (right).
"""

from __future__ import annotations

import json
import sys

from keyfob.spec.constants import CKR, CKU
from tests.client import READ_ONLY, Client, ffi


def main(module: str, right: str, most: str) -> None:
    client = Client(module)
    client.initialize()
    session = client.open(client.slots()[0], READ_ONLY)
    wrong, last = 0, int(CKR.PIN_INCORRECT)
    while last == CKR.PIN_INCORRECT and wrong < int(most):
        last = client.call("C_Login", session, CKU.USER, b"wrong-pin", 9)
        wrong += last == CKR.PIN_INCORRECT
    answer = client.call("C_Login", session, CKU.USER, right.encode(), len(right))
    client.ok("C_Finalize", ffi.NULL)
    print(json.dumps({"wrong": wrong, "last": last, "right": answer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
