"""Answers that must have a form: JSON by schema, and calls of functions."""
import json
import unittest

import jsonschema
import openai

from schemas import SCHEMAS
from setting import LLAVA, asking, both, client, demo, streamed

TOOLS = [
    {"type": "function", "function": {"name": "look_at", "description": "Looks closer.", "parameters": {
        "type": "object", "required": ["where", "times"], "additionalProperties": False, "properties": {
            "where": {"enum": ["left", "right", "中间"]}, "times": {"type": "integer", "minimum": 1, "maximum": 9}}}}},
    {"type": "function", "function": {"name": "paint", "parameters": {
        "type": "object", "required": ["colour"], "additionalProperties": False, "properties": {
            "colour": {"$ref": "#/$defs/colour"}}, "$defs": {"colour": {"type": "string", "maxLength": 6}}}}},
]


def request(**more):
    return {"model": LLAVA, "temperature": 0, "messages": asking("Describe the picture.", demo()), **more}


def ask(**more):
    return client().chat.completions.create(**request(**more))


def twice(**more):
    """Streamed and not."""
    return both(client().chat.completions.create, **request(**more))


class Schemas(unittest.TestCase):
    def test_every_schema_is_followed(self):
        self.assertGreaterEqual(len(SCHEMAS), 50)
        for index, (name, schema) in enumerate(SCHEMAS.items()):
            with self.subTest(schema=name):
                # Half of them sampled: a greedy answer may always take the same way.
                sampling = {"temperature": 1.2, "seed": index} if index % 2 else {}
                form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
                done = ask(response_format=form, **sampling)
                self.assertEqual(done.choices[0].finish_reason, "stop", done.choices[0].message.content)
                self.check(done.choices[0].message.content, schema)
                if index % 5 == 0:
                    said, reason, _, _ = streamed(ask(response_format=form, **sampling, stream=True))
                    self.assertEqual((said, reason), (done.choices[0].message.content, "stop"))

    def check(self, text, schema):
        jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)

    def test_an_object_is_one(self):
        # Of itself this model seldom ends a string or an object.
        ids = [client().post("../tokenize", body={"prompt": mark, "add_special_tokens": False}, cast_to=object)["tokens"][-1]
               for mark in '"}']
        more = {"response_format": {"type": "json_object"}, "logit_bias": {str(id): 8 for id in ids}}
        ended = 0
        for seed in range(4):
            done = twice(**more, temperature=1, seed=seed, max_tokens=400).choices[0]
            self.assertTrue(done.message.content.startswith("{"))
            if done.finish_reason == "stop":
                self.assertIsInstance(json.loads(done.message.content), dict)
                ended += 1
        self.assertGreater(ended, 0, "none was complete")

    def test_completions_and_responses_follow_schemas_too(self):
        schema = {"type": "object", "required": ["n"], "additionalProperties": False,
                  "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        done = both(client().completions.create, model=LLAVA, prompt="USER: hi ASSISTANT:", max_tokens=64, temperature=0,
                    extra_body={"response_format": form})
        self.check(done.choices[0].text, schema)
        asked = {"model": LLAVA, "input": "hi", "temperature": 0,
                 "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}
        done = client().responses.create(**asked)
        self.check(done.output_text, schema)
        events = client().responses.create(**asked, stream=True)
        self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"), done.output_text)

    def test_text_is_no_form(self):
        self.assertEqual(ask(response_format={"type": "text"}).choices[0].message.content,
                         ask().choices[0].message.content)

    def test_wrong_schemas_are_refused_by_name(self):
        for schema in ({"type": "nothing"}, {"$ref": "#/$defs/missing"}, {"type": "string", "pattern": "("}):
            with self.assertRaises(openai.BadRequestError) as refused:
                ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
            self.assertEqual(refused.exception.param, "response_format.json_schema.schema")


class Tools(unittest.TestCase):
    def check(self, call, name=None):
        functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
        self.assertEqual(call.type, "function")
        self.assertTrue(call.id)
        if name:
            self.assertEqual(call.function.name, name)
        jsonschema.validate(json.loads(call.function.arguments), functions[call.function.name])

    def test_a_required_call_is_made(self):
        for seed in range(4):
            done = twice(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=1, seed=seed)
            message = done.choices[0].message
            self.assertEqual((done.choices[0].finish_reason, message.content), ("tool_calls", None))
            self.assertEqual(len(message.tool_calls), 1)
            self.check(message.tool_calls[0])

    def test_a_named_call_is_made_streamed_and_not(self):
        choice = {"type": "function", "function": {"name": "paint"}}
        whole = ask(tools=TOOLS, tool_choice=choice).choices[0].message.tool_calls
        self.assertEqual(len(whole), 1)
        self.check(whole[0], "paint")
        _, reason, _, chunks = streamed(ask(tools=TOOLS, tool_choice=choice, stream=True))
        self.assertEqual(reason, "tool_calls")
        deltas = [call for chunk in chunks for c in chunk.choices for call in c.delta.tool_calls or []]
        self.assertEqual(deltas[0].function.name, "paint")
        arguments = "".join(delta.function.arguments or "" for delta in deltas)
        self.assertEqual(arguments, whole[0].function.arguments)

    def test_a_conversation_with_calls_goes_on(self):
        call = {"id": "call_1", "type": "function", "function": {"name": "paint", "arguments": "{\"colour\": \"red\"}"}}
        messages = [*asking("Paint it.", demo()), {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "done"}]
        done = ask(messages=messages, tools=TOOLS, max_tokens=8)
        self.assertTrue(done.choices[0].message.content)

    def test_without_a_call_the_answer_is_text(self):
        for choice in ("auto", "none"):
            done = twice(tools=TOOLS, tool_choice=choice, max_tokens=8)
            self.assertIsNone(done.choices[0].message.tool_calls)
            self.assertTrue(done.choices[0].message.content)

    def test_wrong_tools_are_refused_by_name(self):
        bad = [{"type": "function", "function": {"name": "no spaces"}}]
        for more, param in (({"tools": bad}, "tools[0].function.name"), ({"tool_choice": "required"}, "tool_choice"),
                            ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "fly"}}},
                             "tool_choice")):
            with self.assertRaises(openai.BadRequestError) as refused:
                ask(**more)
            self.assertEqual(refused.exception.param, param)


if __name__ == "__main__":
    unittest.main()
