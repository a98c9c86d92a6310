"""Completions, responses and tokens through the official client."""
import unittest

import openai

from setting import LLAVA, asking, both, client, data_url, demo, picture, references

PROMPT = "USER: What is a triangle? ASSISTANT:"


def post(path, **body):
    return client().post("../" + path, body=body, cast_to=object)


class Completions(unittest.TestCase):
    def complete(self, **more):
        return client().completions.create(**{"model": LLAVA, "prompt": PROMPT, "temperature": 0, **more})

    def twice(self, **more):
        """Streamed and not."""
        return both(client().completions.create, **{"model": LLAVA, "prompt": PROMPT, "temperature": 0, **more})

    def test_a_text_is_continued_streamed_and_not(self):
        whole = self.complete(max_tokens=12)
        self.assertEqual(whole.object, "text_completion")
        self.assertEqual(whole.usage.completion_tokens + whole.usage.prompt_tokens, whole.usage.total_tokens)
        text, usage, reason = "", None, None
        for chunk in self.complete(max_tokens=12, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.text
                reason = choice.finish_reason or reason
        self.assertEqual((text, reason), (whole.choices[0].text, whole.choices[0].finish_reason))
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)
        short = self.complete(extra_body={"ignore_eos": True})
        self.assertEqual(short.usage.completion_tokens, 16)

    def test_ids_and_several_prompts(self):
        ids = post("tokenize", prompt=PROMPT)["tokens"]
        self.assertEqual(self.complete(prompt=ids).choices[0].text, self.complete().choices[0].text)
        several = self.twice(prompt=[PROMPT, "USER: 你好 ASSISTANT:"], n=2, max_tokens=6, seed=1, temperature=1)
        self.assertEqual([choice.index for choice in several.choices], [0, 1, 2, 3])
        singles = [self.complete(prompt=p, max_tokens=6).usage.prompt_tokens for p in (PROMPT, "USER: 你好 ASSISTANT:")]
        self.assertEqual(several.usage.prompt_tokens, sum(singles))
        self.assertEqual(self.twice(prompt=[ids, ids], max_tokens=4).choices[1].text,
                         self.complete(max_tokens=4).choices[0].text)

    def test_echo_and_logprobs(self):
        self.assertTrue(self.twice(echo=True).choices[0].text.startswith(PROMPT))
        told = self.complete(logprobs=3, max_tokens=5, extra_body={"ignore_eos": True}).choices[0]
        self.assertEqual(len(told.logprobs.tokens), 5)
        self.assertEqual({len(told.logprobs.tokens), len(told.logprobs.token_logprobs), len(told.logprobs.text_offset)},
                         {len(told.logprobs.top_logprobs)})
        self.assertEqual([len(top) for top in told.logprobs.top_logprobs], [3] * len(told.logprobs.tokens))
        self.assertEqual("".join(told.logprobs.tokens).lstrip(), told.text.lstrip())
        self.check_offsets(told.text, told.logprobs)
        # Streamed they are the same.
        streamed = [choice for chunk in self.complete(logprobs=3, max_tokens=5, stream=True, extra_body={"ignore_eos": True})
                    for choice in chunk.choices if choice.logprobs]
        self.assertEqual([at for choice in streamed for at in choice.logprobs.text_offset], told.logprobs.text_offset)

    def check_offsets(self, text, logprobs):
        self.assertGreater(len(logprobs.tokens), 3)
        for token, at in zip(logprobs.tokens, logprobs.text_offset):
            # The blank before the first word is no text.
            self.assertTrue(text[at:].startswith(token) or text[at:].startswith(token.lstrip()), (text, token, at))

    def test_a_prompt_of_the_chat_template_is_the_chat(self):
        chat = client().chat.completions.create(model=LLAVA, temperature=0, max_tokens=16,
                                                messages=asking("What is a triangle?"))
        self.assertEqual(self.complete().choices[0].text, chat.choices[0].message.content)

    def test_wrong_prompts_are_named(self):
        for prompt in ("", [], [1_000_000], [-1], [3], "<image>", ["a", 1], 5):
            with self.subTest(prompt=prompt), self.assertRaises(openai.BadRequestError) as refused:
                self.complete(prompt=prompt)
            self.assertTrue(refused.exception.param.startswith("prompt"), refused.exception)


class Responses(unittest.TestCase):
    def test_a_picture_is_answered_as_in_a_chat_streamed_and_not(self):
        for case in references()[:3]:
            request = {"model": LLAVA, "temperature": 0, "input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": data_url(picture(case)), "detail": "auto"},
                {"type": "input_text", "text": case["question"]}]}]}
            done = client().responses.create(**request)
            self.assertEqual((done.output_text, done.status), (case["answer"], "completed"))
            self.assertEqual(done.usage.input_tokens, case["prompt_tokens"])
            events = list(client().responses.create(**request, stream=True))
            self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
            self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"),
                             case["answer"])
            kinds = [event.type for event in events if event.type != "response.output_text.delta"]
            self.assertEqual(kinds, ["response.created", "response.in_progress", "response.output_item.added",
                                     "response.content_part.added", "response.output_text.done",
                                     "response.content_part.done", "response.output_item.done", "response.completed"])
            self.assertEqual(events[-1].response.output_text, case["answer"])
            self.assertEqual(events[-1].response.usage.input_tokens, case["prompt_tokens"])
            with client().responses.stream(**request) as stream:
                self.assertEqual(stream.get_final_response().output_text, case["answer"])

    def test_instructions_and_a_conversation(self):
        done = client().responses.create(model=LLAVA, instructions="Be brief.", temperature=0, max_output_tokens=4, input=[
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
            {"role": "developer", "content": "Be kind."}, {"role": "user", "content": "What is a moon?"}])
        self.assertEqual(done.usage.output_tokens, 4)
        self.assertEqual((done.status, done.incomplete_details.reason), ("incomplete", "max_output_tokens"))

    def test_functions_are_called_and_their_results_taken(self):
        tool = {"type": "function", "name": "count", "strict": True, "parameters": {
            "type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
            "additionalProperties": False}}
        request = {"model": LLAVA, "temperature": 0, "tools": [tool], "input": "How many?"}
        done = client().responses.create(**request, tool_choice={"type": "function", "name": "count"})
        call = done.output[0]
        self.assertEqual((len(done.output), call.type, call.name), (1, "function_call", "count"))
        events = list(client().responses.create(**request, tool_choice="required", parallel_tool_calls=False, stream=True))
        self.assertEqual(events[-1].response.output[0].arguments, call.arguments)
        self.assertIn("response.function_call_arguments.done", [event.type for event in events])
        more = [{"role": "user", "content": "How many?"}, call.to_dict(),
                {"type": "function_call_output", "call_id": call.call_id, "output": "3"}]
        done = client().responses.create(**{**request, "input": more}, max_output_tokens=5)
        self.assertEqual(done.output[0].type, "message")

    def test_calls_in_a_row_are_one_message_of_a_chat(self):
        calls = [("call_1", "{\"n\": 1}"), ("call_2", "{\"n\": 2}")]
        tool = {"name": "count", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}
        items = [{"role": "user", "content": "How many?"},
                 *({"type": "function_call", "call_id": id, "name": "count", "arguments": arguments} for id, arguments in calls),
                 *({"type": "function_call_output", "call_id": id, "output": "3"} for id, _ in calls)]
        messages = [*asking("How many?"),
                    {"role": "assistant", "content": None, "tool_calls": [
                        {"id": id, "type": "function", "function": {"name": "count", "arguments": arguments}}
                        for id, arguments in calls]},
                    *({"role": "tool", "tool_call_id": id, "content": "3"} for id, _ in calls)]
        done = client().responses.create(model=LLAVA, temperature=0, max_output_tokens=8, input=items,
                                         tools=[{"type": "function", "strict": False, **tool}])
        chat = client().chat.completions.create(model=LLAVA, temperature=0, max_tokens=8, messages=messages,
                                                tools=[{"type": "function", "function": tool}])
        self.assertEqual(done.usage.input_tokens, chat.usage.prompt_tokens)
        self.assertEqual(done.output_text, chat.choices[0].message.content)

    def test_what_needs_a_state_is_refused_by_name(self):
        for field, value in {"previous_response_id": "resp_1", "background": True, "input": 5, "tools": "x"}.items():
            with self.assertRaises(openai.BadRequestError) as refused:
                client().responses.create(**{"model": LLAVA, "input": "hi", field: value})
            self.assertEqual(refused.exception.param, field)


class Tokens(unittest.TestCase):
    def test_there_and_back(self):
        for text in ("What is a triangle?", "图中有 3 个图形。", "🙂👩‍👩‍👧"):
            tokens = post("tokenize", prompt=" " + text, add_special_tokens=False, return_token_strs=True)
            self.assertEqual((tokens["count"], len(tokens["token_strs"])), (len(tokens["tokens"]),) * 2)
            self.assertEqual(post("detokenize", tokens=tokens["tokens"])["prompt"].strip(), text)
            begun = post("tokenize", prompt=" " + text)["tokens"]
            self.assertEqual(begun[-tokens["count"]:], tokens["tokens"])

    def test_a_conversation_has_as_many_as_its_answer_tells(self):
        for case in references()[:3]:
            messages = asking(case["question"], data_url(picture(case)))
            self.assertEqual(post("tokenize", messages=messages)["count"], case["prompt_tokens"])

    def test_wrong_requests_are_named(self):
        for path, body, param in (("tokenize", {}, "prompt"), ("tokenize", {"prompt": "a", "messages": []}, "prompt"),
                                  ("detokenize", {}, "tokens"), ("detokenize", {"tokens": [5, 99999999]}, "tokens[1]")):
            with self.assertRaises(openai.BadRequestError) as refused:
                post(path, **body)
            self.assertEqual(refused.exception.param, param)


if __name__ == "__main__":
    unittest.main()
