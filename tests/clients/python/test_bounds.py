"""A body that is far too large, as clients that send all of it before they read get to see that."""
import json
import os
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

import openai

from setting import LLAVA, MODELS, asking, client

URL = MODELS[LLAVA] + "/v1/chat/completions"
TOO_MUCH = 100 << 20


class Bounds(unittest.TestCase):
    def check(self, error):
        self.assertEqual((error["code"], error["type"]), ("body_too_large", "invalid_request_error"))
        self.assertIn("67108864 bytes", error["message"])

    def test_the_official_client(self):
        with self.assertRaises(openai.APIStatusError) as refused:
            client().chat.completions.create(model=LLAVA, messages=asking("a" * TOO_MUCH))
        self.assertEqual(refused.exception.status_code, 413)
        self.check(refused.exception.body)

    def test_the_library_of_python(self):
        request = urllib.request.Request(URL, b" " * TOO_MUCH, {"content-type": "application/json"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        self.assertEqual((refused.exception.code, refused.exception.headers["connection"]), (413, "close"))
        self.check(json.load(refused.exception)["error"])

    def test_curl(self):
        with tempfile.NamedTemporaryFile() as file:
            os.truncate(file.name, TOO_MUCH)
            # It asks before it sends so much, unless told not to; and it does not know the length of a form's pipe.
            for how in (["--data-binary", f"@{file.name}"], ["-H", "expect:", "--data-binary", f"@{file.name}"],
                        ["-H", "transfer-encoding: chunked", "-H", "expect:", "--data-binary", f"@{file.name}"],
                        ["-F", f"image=@{file.name}", "-F", "prompt=?"]):
                kind = [] if "-F" in how else ["-H", "content-type: application/json"]
                words = ["curl", "-sS", "--http1.1", "-w", "\n%{http_code}", *kind, *how, URL]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60)
                with self.subTest(how=how[:-1]):
                    self.assertEqual(done.returncode, 0, done.stderr)
                    body, status = done.stdout.rsplit("\n", 1)
                    self.assertEqual(status, "413")
                    self.check(json.loads(body)["error"])


if __name__ == "__main__":
    unittest.main()
