"""Receive what is said: ``python examples/receiver.py whsec_… 9000``, the secret and the port.

It needs ``pip install standardwebhooks``.
"""

# ruff: noqa: INP001, T201, D101, D102 - a program that talks to a person
from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

seen: set[str] = set()  # yours is a table with a unique key


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = Webhook(sys.argv[1]).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_error(400)
            return
        if self.headers["webhook-id"] not in seen:
            print(event["message"]["seq"], event["message"]["content"], flush=True)
            seen.add(self.headers["webhook-id"])
        self.send_response(204)
        self.end_headers()


HTTPServer(("127.0.0.1", int([*sys.argv, "9000"][2])), Receiver).serve_forever()
