#!/usr/bin/env python3
"""Asks through the official openai client: ask.py BASE_URL MODEL PICTURE QUESTION [--stream]

Prints {"answer", "finish_reason", "prompt_tokens", "completion_tokens"} as one line of JSON.
"""
import base64
import json
import pathlib
import sys

import openai


def main():
    base, model, picture, question = sys.argv[1:5]
    client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
    assert model in [m.id for m in client.models.list()], "the model is not listed"
    data = base64.b64encode(pathlib.Path(picture).read_bytes()).decode()
    request = {"model": model, "temperature": 0, "max_tokens": 64, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}},
        {"type": "text", "text": question}]}]}
    if "--stream" not in sys.argv:
        done = client.chat.completions.create(**request)
        answer, reason, usage = done.choices[0].message.content, done.choices[0].finish_reason, done.usage
    else:
        answer, reason, usage = "", None, None
        chunks = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
        for chunk in chunks:
            for choice in chunk.choices:
                answer += choice.delta.content or ""
                reason = choice.finish_reason or reason
            usage = chunk.usage or usage
    print(json.dumps({"answer": answer, "finish_reason": reason, "prompt_tokens": usage.prompt_tokens,
                      "completion_tokens": usage.completion_tokens}))


if __name__ == "__main__":
    main()
