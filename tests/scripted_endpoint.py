"""A real HTTP server on the loopback interface that answers chat completions from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ScriptedEndpoint:
    """Counts and keeps every request; `answer(body, number)` gives the status and the body of the response."""

    def __init__(self, answer: Callable[[dict, int], tuple[int, object]]) -> None:
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.most_at_once = 0
        self._now = 0
        lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(endpoint.requests)
                    endpoint.requests.append({"path": self.path, **body})
                    endpoint.headers.append({key.lower(): value for key, value in self.headers.items()})
                    endpoint._now += 1
                    endpoint.most_at_once = max(endpoint.most_at_once, endpoint._now)
                try:
                    status, response = answer(body, number)
                finally:
                    with lock:
                        endpoint._now -= 1
                if status == 0:  # a connection that breaks
                    self.close_connection = True
                    return
                data = response if isinstance(response, bytes) else json.dumps(response).encode()
                self.send_response(status)
                self.send_header("content-type", "text/event-stream" if isinstance(response, bytes) else "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> ScriptedEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(text: str | None, *, prompt_tokens: int = 10, completion_tokens: int = 5, finish_reason: str = "stop", **extra) -> dict:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text, **extra}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], "usage": usage}
