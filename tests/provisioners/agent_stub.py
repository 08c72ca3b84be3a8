"""A tiny agent: it listens where it is told to and does what its environment says."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(
            {
                "pid": os.getpid(),
                "session": os.getsid(0),
                "environment": dict(os.environ),
                "directory": os.getcwd(),
                "argv": sys.argv,
                "path": sys.path,
                "niceness": os.nice(0),
                "threads": threading.active_count(),
                "open_files": open_files(),
                "probes": {path: probe(path) for path in json.loads(os.environ.get("STUB_PROBES", "[]"))},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def open_files() -> list[str]:
    paths = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            paths.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(paths)


def probe(question: str) -> str:
    """Try `read:PATH`, `write:PATH` or `signal:PID` and say how it went."""
    verb, _, target = question.partition(":")
    try:
        if verb == "signal":
            os.kill(int(target), 0)
        elif verb == "read" and os.path.isdir(target):
            os.listdir(target)
        else:
            with open(target, "rb" if verb == "read" else "ab") as file:
                file.read(1) if verb == "read" else file.write(b"x")
    except OSError as error:
        return error.strerror
    return "ok"


def main() -> None:
    sys.stdout.write("stub is up\n")
    sys.stdout.flush()
    if os.environ.get("STUB_EXIT"):
        sys.exit(int(os.environ["STUB_EXIT"]))
    if os.environ.get("STUB_STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.environ.get("STUB_CHILD"):
        # In a session of its own: no process group leads to it.
        subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
    if "AGENT_LISTEN_FD" in os.environ:
        server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.socket = socket.socket(fileno=int(os.environ["AGENT_LISTEN_FD"]))
    else:
        server = HTTPServer(("0.0.0.0", int(os.environ["AGENT_PORT"])), Handler)
    server.serve_forever()


main()
