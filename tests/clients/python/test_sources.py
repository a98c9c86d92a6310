"""Pictures that the server gets itself, where it may: by URL, and from files under a root."""
import functools
import http.server
import os
import threading
import unittest

import openai

from setting import LLAVA, ROOT, asking, both, client, references

from serve import command, start

PICTURES = ROOT / "examples" / LLAVA / "references"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Sources(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=PICTURES))
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        cls.addClassCleanup(pages.server_close)
        cls.addClassCleanup(pages.shutdown)
        cls.case = references()[1]
        cls.urls = [f"http://127.0.0.1:{pages.server_port}/{cls.case['picture']}", (PICTURES / cls.case["picture"]).as_uri()]

    def request(self, url):
        return {"model": LLAVA, "temperature": 0, "messages": asking(self.case["question"], url)}

    def test_what_is_allowed_is_seen_streamed_and_not(self):
        server, address = start(command(os.environ["RUNTIME"], LLAVA, "--allow-image-urls", "--image-url-network", "127.0.0.1",
                                        "--image-root", str(PICTURES)))
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        for url in self.urls:
            with self.subTest(url=url):
                done = both(client(address=address).chat.completions.create, **self.request(url))
                self.assertEqual(done.choices[0].message.content, self.case["answer"])
                self.assertEqual(done.usage.prompt_tokens, self.case["prompt_tokens"])

    def test_what_is_not_allowed_is_refused_with_what_would_allow_it(self):
        for url, flag in zip(self.urls, ("--allow-image-urls", "--image-root")):
            with self.subTest(url=url), self.assertRaises(openai.BadRequestError) as refused:
                client().chat.completions.create(**self.request(url))
            self.assertEqual(refused.exception.param, "messages[0].content[0].image_url")
            self.assertIn(flag, refused.exception.body["message"])


if __name__ == "__main__":
    unittest.main()
