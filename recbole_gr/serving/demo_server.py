"""The web server of `recbole-gr serve-demo`: one page and its data, for this machine alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging import getLogger
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from recbole_gr.errors import ConfigError
from recbole_gr.serving.demo_data import Demo
from recbole_gr.storage.json_files import json_text

LOOPBACK = "127.0.0.1"
MOST_BYTES = 1 << 16  # of the body of a request
SECONDS = 30  # that a connection may be silent
PAGE = Path(__file__).parent / "page"
FILES = {  # all that is served of the disk
    "/": ("demo.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
    "/tree.js": ("tree.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered: its status, and why."""

    def __init__(self, status: HTTPStatus, why: str):
        super().__init__(why)
        self.status = status


class DemoServer(ThreadingHTTPServer):
    """Answers on a port of 127.0.0.1, one request at a time where the model is asked.

    Connections have a thread each, as browsers open some that they do not use; a lock keeps the
    model, which is not made for several threads, to one of them.

    Args:
        demo (Demo): what is asked.
        port (int): 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, demo: Demo, port: int = 0):
        self._demo, self._lock = demo, threading.Lock()
        self.files = {path: (PAGE / name).read_bytes() for path, (name, _) in FILES.items()}
        super().__init__((LOOPBACK, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def address(self) -> str:
        """What a browser is to open."""
        return f"http://{LOOPBACK}:{self.server_port}"

    def hosts(self) -> tuple[str, ...]:
        """Names of this server in a request. Any other is that of a page from elsewhere whose name
        was made to lead here (DNS rebinding)."""
        return tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def ask(self, of_demo: Callable[[Demo], Any]) -> Any:
        """What a function of the demo gives, while no other one runs."""
        with self._lock:
            return of_demo(self._demo)


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version = "recbole-gr"
    sys_version = ""
    timeout = SECONDS

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _get(self, path: str, query: dict[str, str]) -> tuple[bytes, str]:
        if path in FILES:
            return self.server.files[path], FILES[path][1]
        if path == "/api/about":
            return self._json(Demo.about)
        like = query.get("like", "")
        if path == "/api/users":
            return self._json(lambda demo: demo.users(like, "random" in query))
        if path == "/api/items":
            return self._json(lambda demo: demo.items(like))
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no {path!r:.100}")

    def _post(self, path: str, query: dict[str, str]) -> tuple[bytes, str]:
        if path != "/api/recommend":
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no {path!r:.100}")
        asked = self._body()
        return self._json(lambda demo: demo.answer(asked))

    def _body(self) -> Any:
        if self.headers.get_content_type() != "application/json":  # no form of another page has it
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send Content-Length")
        if len(length) > 9 or int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BYTES} bytes")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the request is no JSON: {error}") from error

    def _json(self, of_demo: Callable[[Demo], Any]) -> tuple[bytes, str]:
        data = self.server.ask(of_demo)
        return json_text(data, ensure_ascii=False).encode(), "application/json"

    def _respond(self, answer: Callable[[str, dict[str, str]], tuple[bytes, str]]) -> None:
        status, why = HTTPStatus.OK, ""
        try:
            self._check_sender()
            parts = urlsplit(self.path)
            given = parse_qs(parts.query, keep_blank_values=True, max_num_fields=10)
            body, kind = answer(parts.path, {name: values[0] for name, values in given.items()})
        except Refused as refusal:
            status, why = refusal.status, str(refusal)
        except (ConfigError, ValueError) as error:
            status, why = HTTPStatus.BAD_REQUEST, str(error)
        except Exception as error:  # the page says so, and the server goes on
            getLogger().exception("%s", self.path)
            status, why = HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}"
        if why:
            body, kind = json_text({"error": why}).encode(), "application/json"
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _check_sender(self) -> None:
        """Refuse requests that come by another name or from another page."""
        hosts = self.server.hosts()
        if self.headers.get_all("Host", []) not in [[host] for host in hosts]:
            raise Refused(HTTPStatus.FORBIDDEN, f"open {self.server.address}")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in hosts]:
            raise Refused(HTTPStatus.FORBIDDEN, "the request comes from another page")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's business; errors are logged where they happen."""
