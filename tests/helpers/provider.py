"""An identity provider on this machine: it publishes keys, and signs tokens with them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm


@dataclass
class Signer:
    """A private key, and how it is published."""

    private: Any
    algorithm: str
    kid: str | None
    published: dict[str, Any] = field(default_factory=dict)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as the provider publishes it."""
        public = self.private.public_key()
        found: dict[str, Any]
        if self.algorithm == "EdDSA":
            found = OKPAlgorithm.to_jwk(public, as_dict=True)
        elif self.algorithm.startswith("ES"):
            found = ECAlgorithm.to_jwk(public, as_dict=True)
        else:
            found = RSAAlgorithm.to_jwk(public, as_dict=True)
        found.pop("key_ops", None)
        if self.kid is not None:
            found["kid"] = self.kid
        return {**found, **self.published}

    def token(self, *, algorithm: str | None = None, kid: Any = ..., **claims: Any) -> str:
        """A token signed with this key; claims that are None are left out."""
        whole = {"sub": "ada", "exp": int(time.time()) + 600, **claims}
        header = self.kid if kid is ... else kid
        return jwt.encode(
            {name: value for name, value in whole.items() if value is not None},
            self.private,
            algorithm=algorithm or self.algorithm,
            headers=None if header is None else {"kid": header},
        )


# Making one takes a tenth of a second; what differs between tests is how it is published.
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def rsa_signer(kid: str | None = "rsa", algorithm: str = "RS256", **published: Any) -> Signer:
    """The one RSA key there is."""
    return Signer(_RSA, algorithm, kid, published)


def ec_signer(kid: str | None = "ec", algorithm: str = "ES256", **published: Any) -> Signer:
    """A new key on a curve."""
    curve = ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1()
    return Signer(ec.generate_private_key(curve), algorithm, kid, published)


def ed_signer(kid: str | None = "ed", **published: Any) -> Signer:
    """A new Ed25519 key."""
    return Signer(ed25519.Ed25519PrivateKey.generate(), "EdDSA", kid, published)


class Provider:
    """What the server asks for keys."""

    def __init__(self, *signers: Signer) -> None:
        self.document: Any = {}
        self.publish(*signers)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        #: Answers wait for it when it is set.
        self.hold: threading.Event | None = None
        #: Set whenever it was asked.
        self.was_asked = threading.Event()
        self.url = ""

    def publish(self, *signers: Signer) -> None:
        """Publish these keys from now on."""
        self.document = {"keys": [signer.jwk for signer in signers]}


@contextlib.contextmanager
def provider(*signers: Signer) -> Iterator[Provider]:
    """Run a provider on a free port."""
    here = Provider(*signers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.asked += 1
            here.was_asked.set()
            if here.hold is not None:
                here.hold.wait(30)
            document = here.document
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(here.status)
            for name, value in here.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield here
    finally:
        if here.hold is not None:
            here.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
