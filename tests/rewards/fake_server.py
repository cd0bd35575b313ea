"""A model server that says what it is told to, and remembers what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer(ThreadingHTTPServer):
    """``answer(path, body)`` gives a body, (status, body), or text to be sent as it is; it may block."""

    daemon_threads = True

    def __init__(self, answer) -> None:
        self.answer, self.asked, self.headers_seen = answer, [], []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body):
        server = self.server
        with server.lock:
            server.asked.append((self.path, body))
            server.headers_seen.append(dict(self.headers))
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            answer = server.answer(self.path, body)
        finally:
            with server.lock:
                server.under_way -= 1
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # whoever asked has stopped waiting
            pass

    def log_message(self, *args):
        pass


def plan(*answers):
    """Each request gets the next of these; the last one stays."""
    left = list(answers)
    return lambda path, body: left.pop(0) if len(left) > 1 else left[0]


def said(text):
    """A chat completion of ``text``."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}
