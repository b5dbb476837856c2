"""A hub on this machine: the addresses that the hub's library asks for one data set, over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """One data set at one commit. `asked` lists the paths, in order."""

    def __init__(self, dataset: str, files: dict[str, bytes], *, gated: str | bool = False, licence: str | None = None):
        self.dataset, self.files, self.gated, self.licence = dataset, files, gated, licence
        self.asked: list[str] = []
        self.url = ""

    def about(self) -> dict[str, object]:
        siblings = [{"rfilename": name} for name in self.files]
        card = {"license": self.licence} if self.licence else {}
        return {
            "id": self.dataset,
            "sha": REVISION,
            "gated": self.gated,
            "cardData": card,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }

    def tree(self) -> list[dict[str, object]]:
        return [{"type": "file", "path": name, "size": len(body), "oid": _oid(body)} for name, body in self.files.items()]


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub at `hub.url` while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            hub.asked.append(path)
            api = f"/api/datasets/{hub.dataset}"
            if path == f"{api}/revision/{REVISION}":
                return self._send(200, json.dumps(hub.about()).encode(), body=body)
            if path.startswith(f"{api}/tree/{REVISION}"):
                return self._send(200, json.dumps(hub.tree()).encode(), body=body)
            name = path.removeprefix(f"/datasets/{hub.dataset}/resolve/{REVISION}/")
            if name in hub.files:
                return self._send(200, hub.files[name], body=body, headers={"ETag": f'"{_oid(hub.files[name])}"'})
            if path.startswith(api):
                return self._send(404, b"{}", body=body, headers={"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such commit"})
            return self._send(404, b"{}", body=body, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such data set"})

        def _send(self, status: int, content: bytes, *, body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"X-Repo-Commit": REVISION, "Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
