"""A stand-in for the Hugging Face hub on this machine: it gives files, and takes commits."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

COMMIT = "0" * 40
_TAKEN = {"uploadMode": "regular", "shouldIgnore": False}


class Hub(ThreadingHTTPServer):
    """Files by repository and path."""

    files: dict[str, bytes]
    tokens: set[str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repository, found, name = self.path.strip("/").partition("/resolve/main/")
        content = self.hub.files.get(f"{repository}/{name}")
        if not found or content is None:
            return self._say({"error": "not found"}, 404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_PUT(self) -> None:
        self.hub.files[self.path.removeprefix("/lfs/")] = self._read()
        self._say({})

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        body = self._read()
        place = self.path.removeprefix("/api/models/").removeprefix("/api/")
        repository = place.removesuffix("/preupload/main").removesuffix("/commit/main")
        if place == "repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self._say({"url": f"{self.hub.address}/{name}"})
        elif place == "validate-yaml":
            self._say({"warnings": [], "errors": []})
        elif place.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self._say({"files": [{"path": f["path"], **_TAKEN} for f in files]})
        elif place.endswith("/commit/main"):
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    content = base64.b64decode(told["value"]["content"])
                    self.hub.files[f"{repository}/{told['value']['path']}"] = content
            url = f"{self.hub.address}/{repository}/commit/{COMMIT}"
            self._say({"success": True, "commitOid": COMMIT, "commitUrl": url})
        else:
            self._say({"error": self.path}, 404)

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, answer: object, code: int = 200) -> None:
        text = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said."""


@contextmanager
def local_hub(patch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """Within the block the hub is here, with an empty cache and no token."""
    from huggingface_hub import constants

    hub = Hub(("127.0.0.1", 0), _Answers)
    hub.files, hub.tokens = {}, set()
    Thread(target=hub.serve_forever, daemon=True).start()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "https_proxy", "http_proxy"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
