"""What all suites share: the clients, the pictures, what the reference answered to them, and how answers are read."""
import base64
import collections
import json
import os
import pathlib
import sys

import openai

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests/clients"))
MODELS = {"tiny-llava": os.environ["LLAVA"], "tiny-internvl": os.environ["INTERNVL"]}
LLAVA = "tiny-llava"


def client(model=LLAVA, address=None):
    """Of the server at `address`, else of the one that was started for the model."""
    return openai.OpenAI(base_url=(address or MODELS[model]) + "/v1", api_key="none", max_retries=0, timeout=120)


def references(model=LLAVA):
    """What transformers answered, greedily."""
    return json.loads((ROOT / "examples" / model / "references/references.json").read_text())["cases"]


def picture(case, model=LLAVA):
    return (ROOT / "examples" / model / "references" / case["picture"]).read_bytes()


def data_url(png):
    return "data:image/png;base64," + base64.b64encode(png).decode()


def demo():
    return data_url((ROOT / "examples" / LLAVA / "demo.png").read_bytes())


def asking(text, *urls):
    """One message of the person, with pictures or without."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
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


def both(create, **request):
    """The whole answer to a request that must give the same, choice by choice and at the same cost, as a stream."""
    whole = create(**request)
    chunks = list(create(**request, stream=True, stream_options={"include_usage": True}))
    assert len(chunks) > 1, chunks
    pieces, choices = said(choice for chunk in chunks for choice in chunk.choices), said(whole.choices)
    assert pieces == choices, f"streamed: {pieces}\nwhole: {choices}"
    counts = [(usage.prompt_tokens, usage.completion_tokens) for usage in (chunks[-1].usage, whole.usage)]
    assert counts[0] == counts[1], counts
    return whole


def said(choices):
    """What choices say, or the pieces of them: by index the text, the calls, the tokens (if told) and the reason."""
    found = collections.defaultdict(lambda: {"text": "", "calls": {}, "tokens": [], "reason": None})
    for choice in choices:
        one = found[choice.index]
        part = getattr(choice, "message", None) or getattr(choice, "delta", None)
        one["text"] += (part.content if part else choice.text) or ""
        for at, call in enumerate(part and part.tool_calls or []):
            named = one["calls"].setdefault(getattr(call, "index", at), {"name": "", "arguments": ""})
            named["name"] += call.function.name or ""
            named["arguments"] += call.function.arguments or ""
        if choice.logprobs:
            one["tokens"] += [token.token for token in choice.logprobs.content] if part else choice.logprobs.tokens
        one["reason"] = choice.finish_reason or one["reason"]
    return dict(found)
