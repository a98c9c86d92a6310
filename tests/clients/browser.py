#!/usr/bin/env python3
"""Pages of two origins ask the model server from a real browser: browser.py BINARY PACKAGES [SCREENSHOT]

The server allows the pages of one of them. What those do works, streams among it, as written in browser/page.html;
the others are kept from every answer by the browser. PACKAGES holds the official client for Node, which such a page
can load too. A screenshot of the page that may ask is written where asked for.
"""
import http.server
import json
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import serve

MODEL = "tiny-llava"
KEY = "sk-of-the-browser-test"
PATIENCE_SECONDS = 120
BROWSERS = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
KINDS = {".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript",
         ".png": "image/png", ".json": "application/json"}
EXAMPLE = serve.ROOT / "examples" / MODEL / "references"
CASE, OTHER_CASE = json.loads((EXAMPLE / "references.json").read_text())["cases"][:2]


class Origin:
    """A server of pages, and what they report."""

    def __init__(self, packages):
        self.reports = queue.Queue()
        self.done = threading.Event()
        self.files = {"/": pathlib.Path(__file__).with_name("browser") / "page.html",
                      "/picture.png": EXAMPLE / CASE["picture"], "/other.png": EXAMPLE / OTHER_CASE["picture"]}
        self.client = (packages / "node_modules/openai").resolve()
        self.case = {}
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                # The page counts as loaded once it has reported, and then the browser takes its picture and ends.
                if self.path == "/reported" and not origin.done.wait(PATIENCE_SECONDS):
                    return
                found = origin.read(self.path.split("?")[0])
                self.answer(*(found or (404, "text/plain", b"")))

            def do_POST(self):
                origin.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.answer(200, "application/json", b"{}")
                origin.done.set()

            def answer(self, status, kind, body):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def read(self, path):
        if path == "/case.json":
            return 200, "application/json", json.dumps(self.case).encode()
        file = self.files.get(path) or (self.client / path.removeprefix("/openai/")).resolve()
        if file.is_file() and (path in self.files or self.client in file.parents):
            return 200, KINDS.get(file.suffix, "application/octet-stream"), file.read_bytes()
        return None


def visit(browser, origin, picture):
    """Opens the origin's page; what it reports."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
                        f"--screenshot={picture}", "--window-size=900,760", origin.name],
                       timeout=PATIENCE_SECONDS, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return origin.reports.get(timeout=1)


class Pages(unittest.TestCase):
    def test_a_page_of_an_allowed_origin_gets_everything(self):
        found = visit(BROWSER, ALLOWED, SCREENSHOT)
        self.assertEqual([name for name, result in found.items() if "error" in result], [], found)
        value = {name: result["value"] for name, result in found.items()}
        self.assertEqual(value["models"], [MODEL])
        self.assertEqual(value["json"]["text"], CASE["answer"])
        self.assertTrue(value["json"]["id"], "a page may read the request's id")
        self.assertTrue(value["stream"]["text"].startswith(CASE["answer"]), value["stream"])
        self.assertEqual(value["stream"]["last"], "[DONE]")
        self.assertEqual(value["stream"]["type"], "text/event-stream")
        self.assertGreater(value["stream"]["reads"], 4, "the page sees the answer grow")
        self.assertEqual(value["form"], CASE["answer"])
        several = value["pictures"]
        self.assertTrue(several["json"])
        self.assertEqual([several["stream"], several["form"]], [several["json"]] * 2)
        self.assertGreaterEqual(several["tokens"], CASE["prompt_tokens"] + 196)
        self.assertEqual(value["error"], {"status": 400, "param": "temperature"})
        self.assertEqual((value["unkeyed"], value["simple"]), (401, 200))
        self.assertEqual(value["client"], CASE["answer"])

    def test_a_page_of_another_origin_gets_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            found = visit(BROWSER, OTHER, pathlib.Path(folder) / "x.png")
        self.assertEqual(set(found), {"models", "json", "stream", "form", "pictures", "error", "unkeyed", "simple", "client"})
        for name, result in found.items():
            # The client wraps what the browser says.
            expected = "Error" if name == "client" else "TypeError"
            self.assertEqual(result.get("error"), expected, f"{name}: {result}")


if __name__ == "__main__":
    binary, packages = sys.argv[1], pathlib.Path(sys.argv[2])
    BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
    if BROWSER is None:
        print("no browser is installed: its pages are not tested")
        sys.exit()
    ALLOWED, OTHER = Origin(packages), Origin(packages)
    with tempfile.TemporaryDirectory() as work:
        SCREENSHOT = sys.argv[3] if len(sys.argv) > 3 else f"{work}/page.png"
        server, address = serve.start(serve.command(binary, MODEL, "--cors-origin", ALLOWED.name), {"VLM_API_KEY": KEY})
        try:
            for origin in (ALLOWED, OTHER):
                origin.case = {"server": address, "key": KEY, "model": MODEL, "question": CASE["question"]}
            unittest.main(argv=sys.argv[:1])
        finally:
            server.kill()
