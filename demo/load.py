"""Asks the model: once, printing the answer as it streams, or with many requests at the same time."""
import base64
import json
import mimetypes
import threading
import time
import urllib.error
import urllib.parse
import urllib.request


def question(model, picture, text, **more):
    """A chat request with one picture as a data URL."""
    kind = mimetypes.guess_type(picture)[0] or "image/png"
    with open(picture, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    content = [{"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}},
               {"type": "text", "text": text}]
    return {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, **more}


def post(base, body, timeout=300):
    """Opens the chat endpoint."""
    request = urllib.request.Request(base + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=timeout)


def stream(base, body, show):
    """Streams one answer, hands each piece to `show`, and returns the whole."""
    answer = ""
    with post(base, {**body, "stream": True}) as response:
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            for choice in chunk["choices"]:
                piece = choice["delta"].get("content") or ""
                answer += piece
                show(piece)
    return answer


class Load:
    """Keeps a number of requests in flight until it is stopped; a refused one is sent again after a pause."""

    def __init__(self, base, body, in_flight):
        self.base, self.body = base, body
        self.answered, self.refused, self.failed, self.ended = 0, 0, [], threading.Event()
        self.lock = threading.Lock()
        self.started = time.monotonic()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(in_flight)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        while not self.ended.is_set():
            try:
                with post(self.base, self.body) as response:
                    response.read()
                with self.lock:
                    self.answered += 1
            except urllib.error.HTTPError as error:
                wait = float(error.headers.get("Retry-After") or 1)
                with self.lock:
                    if error.code == 429:
                        self.refused += 1
                    else:
                        self.failed.append(f"HTTP {error.code}: {error.read(300).decode(errors='replace')}")
                self.ended.wait(wait)
            except OSError as error:
                with self.lock:
                    self.failed.append(str(error))
                self.ended.wait(1)

    def stop(self):
        """Lets the requests under way finish."""
        self.ended.set()
        for thread in self.threads:
            thread.join(timeout=300)
