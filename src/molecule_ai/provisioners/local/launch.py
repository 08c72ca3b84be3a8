"""A new interpreter that becomes an agent: `python -m molecule_ai.provisioners.local.launch BIRTH`.

It inherits the line to the server as descriptor 3 and the listening socket as descriptor 4, and was
started with the agent's own environment.
"""

from __future__ import annotations

import socket
import sys

import msgspec

from .birth import Birth, close_above, live, settle

CONTROL_FD = 3
LISTENER_FD = 4


def main() -> None:
    close_above(LISTENER_FD)
    birth = msgspec.json.decode(sys.argv[1], type=Birth)
    settle(birth, socket.socket(fileno=CONTROL_FD), LISTENER_FD)
    live(birth.entry)


if __name__ == "__main__":
    main()
