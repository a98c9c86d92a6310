"""Answers that end early or are not begun, on servers of their own: a client leaves, all is full, the server goes."""
import os
import time
import unittest
import urllib.request

import openai

from setting import LLAVA, asking, client, streamed

from serve import command, start

BINARY = os.environ["RUNTIME"]
PATIENCE_SECONDS = 60
# The longest answers that the checkpoint's context holds. Responses have no way past the end of text but a form.
ENDLESS = {"model": LLAVA, "max_tokens": 900, "temperature": 0, "extra_body": {"ignore_eos": True}}
NUMBERS = {"type": "json_schema", "name": "x", "schema": {"type": "array", "minItems": 800, "items": {"enum": [1, 2]}}}


def chat(address, **more):
    return client(address=address).chat.completions.create(
        **{**ENDLESS, "messages": asking("What is a triangle?"), "stream": True, **more})


def completion(address, **more):
    return client(address=address).completions.create(**{**ENDLESS, "prompt": "A triangle", "stream": True, **more})


def response(address):
    return client(address=address).responses.create(
        model=LLAVA, input="Count.", max_output_tokens=900, temperature=0, text={"format": NUMBERS}, stream=True)


# How each route is asked for a long stream, and the text of one of its events.
ROUTES = {
    "chat": (chat, lambda chunk: chunk.choices[0].delta.content),
    "completions": (completion, lambda chunk: chunk.choices[0].text),
    "responses": (response, lambda event: event.type == "response.output_text.delta" and event.delta),
}


def metric(address, series):
    with urllib.request.urlopen(address + "/metrics", timeout=PATIENCE_SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    value, = [line.rsplit(" ", 1)[1] for line in lines if line.rsplit(" ", 1)[0] == series]
    return float(value)


def cancelled(address):
    return metric(address, 'vlm_requests_finished_total{reason="cancelled"}')


class Places(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        words = command(BINARY, LLAVA, "--max-queue", "8", "--keep-alive-seconds", "1", places=1)
        server, cls.address = start(words)
        cls.addClassCleanup(server.wait)
        cls.addClassCleanup(server.kill)

    def until_free(self, gone):
        """Waits until nothing runs or waits, and so many have left."""
        begun = time.monotonic()
        while (metric(self.address, "vlm_requests_running") or cancelled(self.address) < gone
               or metric(self.address, 'vlm_requests_waiting{stage="queue"}')):
            self.assertLess(time.monotonic() - begun, PATIENCE_SECONDS, "a place is still taken")
            time.sleep(0.02)

    def test_who_leaves_a_stream_frees_the_place(self):
        for name, (ask, text) in ROUTES.items():
            with self.subTest(route=name):
                before = cancelled(self.address)
                stream = ask(self.address)
                for event in stream:
                    if text(event):
                        break
                stream.close()
                self.until_free(before + 1)

    def test_who_waits_no_longer_frees_the_place(self):
        before = cancelled(self.address)
        # One after another they take many seconds.
        with self.assertRaises(openai.APITimeoutError):
            chat(self.address, n=8, stream=False, timeout=openai.Timeout(PATIENCE_SECONDS, read=1))
        self.until_free(before + 1)

    def test_one_too_many_is_told_when_to_come_back(self):
        before, streams = cancelled(self.address), []
        with self.assertRaises(openai.RateLimitError) as refused:
            for _ in range(32):
                streams.append(chat(self.address))
        self.assertEqual((refused.exception.code, refused.exception.type), ("queue_full", "rate_limit_error"))
        self.assertIn(int(refused.exception.response.headers["retry-after"]), range(1, 61))
        for stream in streams:
            stream.close()
        self.until_free(before + 1)
        self.assertEqual(chat(self.address, stream=False, max_tokens=2).usage.completion_tokens, 2)

    def test_comments_of_a_stream_that_waits_are_no_events(self):
        alone = chat(self.address, stream=False, max_tokens=20).choices[0]
        before = [chat(self.address) for _ in range(7)]
        waits, comments = chat(self.address, max_tokens=20), []
        blocks = waits.response.iter_bytes

        def heard():
            for block in blocks():
                if b": keep-alive\n\n" in block:
                    comments.append(block)
                    # It has waited long enough.
                    for stream in before:
                        stream.close()
                yield block
        waits.response.iter_bytes = heard
        self.assertEqual(streamed(waits)[:2], (alone.message.content, alone.finish_reason))
        self.assertGreater(len(comments), 0)


class Drained(unittest.TestCase):
    def test_a_stream_that_is_cut_is_an_error_of_the_client(self):
        server, address = start(command(BINARY, LLAVA, "--drain-timeout-seconds", "0", places=16))
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        # Beside so many others each takes seconds.
        others = completion(address, n=13)
        streams = {name: ask(address) for name, (ask, _) in ROUTES.items()}
        for name, (_, text) in ROUTES.items():
            while not text(next(streams[name])):
                pass
        server.terminate()
        last = {}
        for name, stream in streams.items():
            with self.subTest(route=name):
                with self.assertRaises(openai.APIError) as cut:
                    for event in stream:
                        last[name] = event
                self.assertNotIsInstance(cut.exception, openai.APIConnectionError)
                self.assertEqual((cut.exception.code, cut.exception.type), ("server_draining", "service_unavailable_error"))
        # Those who read events alone see it too.
        failed = last["responses"]
        self.assertEqual((failed.type, failed.response.status), ("response.failed", "failed"))
        self.assertEqual(failed.response.error.code, "server_draining")
        others.close()
        self.assertEqual(server.wait(PATIENCE_SECONDS), 0)


if __name__ == "__main__":
    unittest.main()
