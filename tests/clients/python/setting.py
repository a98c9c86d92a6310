"""What all suites share: the clients, the pictures and what the reference answered to them."""
import base64
import json
import os
import pathlib
import sys

import openai

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests/clients"))
MODELS = {"tiny-llava": os.environ["LLAVA"], "tiny-internvl": os.environ["INTERNVL"]}
LLAVA = "tiny-llava"


def client(model=LLAVA):
    return openai.OpenAI(base_url=MODELS[model] + "/v1", api_key="none", max_retries=0, timeout=120)


def references(model=LLAVA):
    """What transformers answered, greedily."""
    return json.loads((ROOT / "examples" / model / "references/references.json").read_text())["cases"]


def picture(case, model=LLAVA):
    return (ROOT / "examples" / model / "references" / case["picture"]).read_bytes()


def data_url(png):
    return "data:image/png;base64," + base64.b64encode(png).decode()


def demo():
    return data_url((ROOT / "examples" / LLAVA / "demo.png").read_bytes())


def asking(text, url=None):
    """One message of the person, with a picture or without."""
    parts = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def streamed(stream):
    """Text, reason and usage of a stream of one answer, and its chunks."""
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(reasons) == 1 and choices[-1].finish_reason, reasons
    assert choices[0].delta.role == "assistant"
    return text, reasons[0], usages[0] if usages else None, chunks
