"""A real HTTP server that speaks as much of OpenAI's protocol as a teacher hears, and misbehaves as it is told."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-0123456789abcdefghijklmnop"
MODEL = "fake-teacher"


def answer(prompt, **changes):
    """Return the body of an answer; input tokens are characters, output tokens words."""
    text = f"the answer to {prompt}"
    message = {"role": "assistant", "content": text, "refusal": None}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": f"{MODEL}-2026",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(text.split()), "total_tokens": 0},
    }
    body["choices"][0]["finish_reason"] = changes.pop("finish", "stop")
    message.update({name: changes.pop(name) for name in ("content", "refusal") if name in changes})
    return body | changes


class FakeEndpoint:
    """Serves on loopback inside a `with` block.

    Args:
        behave: takes a prompt and the number of the attempt from 0; returns a body, (status, body, headers), bytes, or
            the word "cut".
        seconds: that an answer takes.
    """

    def __init__(self, behave=lambda prompt, attempt: answer(prompt), seconds=0.0):
        self.behave, self.seconds = behave, seconds
        self.requests = []  #: (monotonic time, prompt, body) of all that were asked
        self.answered = Counter()  #: prompt -> how often it was answered, and paid for
        self.models = [MODEL]
        self.at_once = self.most_at_once = 0
        self._attempts = Counter()
        self._lock = threading.Lock()

    @property
    def environment(self):
        return {"OPENAI_BASE_URL": f"http://127.0.0.1:{self._server.server_port}/v1", "OPENAI_API_KEY": KEY}

    @property
    def prompts(self):
        return [prompt for _, prompt, _ in self.requests]

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def complete(self, body):
        prompt = body["messages"][-1]["content"]
        with self._lock:
            attempt, self._attempts[prompt] = self._attempts[prompt], self._attempts[prompt] + 1
            self.requests.append((time.monotonic(), prompt, body))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        result = self.behave(prompt, attempt)
        with self._lock:
            self.at_once -= 1
            self.answered[prompt] += isinstance(result, dict)
        return result

    def _handler(self):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def send(self, status, body, headers=()):
                self.send_response(status)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": len(body),
                    **dict(headers),
                }.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if self.headers["Authorization"] != f"Bearer {KEY}":
                    return self.refuse_key()
                if fake.models is not None and self.path == "/v1/models":
                    return self.send(
                        200, json.dumps({"object": "list", "data": [{"id": m} for m in fake.models]}).encode()
                    )
                return self.send(404, b"not found", {"Content-Type": "text/plain"})

            def do_POST(self):
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                if not sent:  # the client was killed
                    return
                if self.headers["Authorization"] != f"Bearer {KEY}":
                    self.refuse_key()
                    return
                result = fake.complete(json.loads(sent))
                if result == "cut":
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", "5000")
                    self.end_headers()
                    self.wfile.write(b'{"id": "chatcmpl-1", "choices": [{"mess')
                    self.close_connection = True
                elif isinstance(result, tuple):
                    self.send(result[0], json.dumps(result[1]).encode(), result[2])
                else:
                    self.send(200, result if isinstance(result, bytes) else json.dumps(result).encode())

            def refuse_key(self):
                given = self.headers["Authorization"].removeprefix("Bearer ")
                message = f"Incorrect API key provided: {given}."  # some servers repeat it in full
                self.send(401, json.dumps({"error": {"message": message, "code": "invalid_api_key"}}).encode())

            def handle(self):
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):  # the client was killed
                    self.close_connection = True

            def log_message(self, *_):
                pass

        return Handler
