"""A webhook's receiver on a host: prints what it is sent, a line each. ``python -m tests.lab.hook PORT``."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        say(body.decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    say("listening")
    server.serve_forever()
