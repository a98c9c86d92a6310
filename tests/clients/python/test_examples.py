"""The examples of docs/api.md and of the README, run as they are written but for the server's address."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from setting import LLAVA, MODELS, ROOT

from serve import start

BLOCK = re.compile(r"^```(sh|python|js)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BINARY = pathlib.Path(os.environ["RUNTIME"])


def run(words, **more):
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Examples(unittest.TestCase):
    def test_those_of_the_page_about_the_api(self):
        blocks = BLOCK.findall((ROOT / "docs/api.md").read_text())
        self.assertEqual([kind for kind, _ in blocks].count("python"), 3)
        self.assertEqual(sum("stream=true" in text for _, text in blocks), 1)
        for kind, text in blocks:
            with self.subTest(example=text.splitlines()[0]):
                getattr(self, kind)(text)

    def sh(self, text):
        if "vlm-runtime serve" in text:
            return self.served(text)
        said = run(["bash", "-euo", "pipefail", "-c", addressed(text)]).strip()
        self.assertTrue(said)
        if "stream=true" in text:
            self.streamed(said)

    def streamed(self, said):
        """What curl wrote of a stream."""
        *chunks, end = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
        self.assertEqual(end, "[DONE]")
        choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
        self.assertTrue("".join(choice["delta"].get("content") or "" for choice in choices))
        self.assertEqual(choices[-1]["finish_reason"], "stop")

    def python(self, text):
        self.assertTrue(run([sys.executable, "-c", addressed(text)]).strip())

    def js(self, text):
        # Packages are looked for beside the file.
        with tempfile.NamedTemporaryFile("w", dir=os.environ["NODE_PACKAGES"], suffix=".mjs") as script:
            script.write(addressed(text))
            script.flush()
            self.assertTrue(run(["node", script.name]).strip())

    def served(self, text):
        """A command that serves, on a port of its own."""
        path = {"PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
        # exec, so that the server is what is ended.
        command = ["bash", "-c", text.rstrip().replace("vlm-runtime", "exec vlm-runtime") + ' "$@"', "-"]
        server, _ = start(command + ["--port", "0"], path)
        server.kill()
        server.wait()

    def test_the_form_of_the_readme(self):
        text, = re.findall(r"^curl -F .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ROOT / "examples" / LLAVA / "demo.png", f"{folder}/photo.jpg")
            text = text.replace("http://SERVICE", MODELS[LLAVA]).replace("@photo.jpg", f"@{folder}/photo.jpg")
            self.assertIn('"finish_reason"', run(["bash", "-c", text]))


def addressed(text):
    assert "http://localhost:8000" in text
    return text.replace("http://localhost:8000", MODELS[LLAVA])


if __name__ == "__main__":
    unittest.main()
