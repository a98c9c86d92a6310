"""LangChain's class for OpenAI's API: answers, streams, structured answers, tools."""
import unittest

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from setting import LLAVA, MODELS, client, data_url, demo, picture, references


def chat(**more):
    return ChatOpenAI(base_url=MODELS[LLAVA] + "/v1", api_key="none", model=LLAVA, temperature=0, max_retries=0, **more)


def messages(case, *more):
    """The case's question about its picture, and about more of them."""
    urls = [data_url(picture(case)), *more]
    return [HumanMessage([*({"type": "image_url", "image_url": {"url": url}} for url in urls),
                          {"type": "text", "text": case["question"]}])]


class Count(BaseModel):
    """How many things are there."""

    number: int = Field(ge=0, le=9)
    sure: bool


class LangChain(unittest.TestCase):
    def test_answers_streamed_and_not(self):
        for case in references()[:3]:
            done = chat().invoke(messages(case))
            self.assertEqual(done.content, case["answer"])
            self.assertEqual(done.usage_metadata["input_tokens"], case["prompt_tokens"])
            self.assertEqual("".join(chunk.content for chunk in chat().stream(messages(case))), case["answer"])

    def test_two_pictures_streamed_and_not(self):
        case = references()[1]
        asked = messages(case, demo())
        done = chat().invoke(asked)
        plain = client().chat.completions.create(
            model=LLAVA, temperature=0, messages=[{"role": "user", "content": asked[0].content}])
        self.assertEqual(done.content, plain.choices[0].message.content)
        self.assertEqual(done.usage_metadata["input_tokens"], plain.usage.prompt_tokens)
        self.assertGreaterEqual(plain.usage.prompt_tokens, case["prompt_tokens"] + 196)
        pieces = list(chat(stream_usage=True).stream(asked))
        self.assertEqual("".join(piece.content for piece in pieces), done.content)
        counts = [piece.usage_metadata["input_tokens"] for piece in pieces if piece.usage_metadata]
        self.assertEqual(sum(counts), plain.usage.prompt_tokens)

    def test_the_responses_endpoint(self):
        case = references()[0]
        self.assertEqual(chat(use_responses_api=True).invoke(messages(case)).text, case["answer"])

    def test_structured_answers(self):
        for method in ("json_schema", "function_calling"):
            found = chat().with_structured_output(Count, method=method, strict=True).invoke(
                [SystemMessage("Count."), *messages(references()[0])])
            self.assertIsInstance(found, Count)


if __name__ == "__main__":
    unittest.main()
