"""LangChain's class for OpenAI's API: answers, streams, structured answers, tools."""
import unittest

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from setting import LLAVA, MODELS, data_url, picture, references


def chat(**more):
    return ChatOpenAI(base_url=MODELS[LLAVA] + "/v1", api_key="none", model=LLAVA, temperature=0, max_retries=0, **more)


def messages(case):
    return [HumanMessage([{"type": "image_url", "image_url": {"url": data_url(picture(case))}},
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
