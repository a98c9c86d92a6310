"""Every row of the table through the official client: chat, streamed and not."""
import math
import unittest

import openai

from setting import LLAVA, MODELS, asking, both, client, data_url, demo, picture, references, streamed

QUESTION = "What is shown in the picture?"


def request(**more):
    return {"model": LLAVA, "temperature": 0, "max_tokens": 64, "messages": asking(QUESTION, demo()), **more}


def ask(**more):
    return client().chat.completions.create(**request(**more))


def twice(**more):
    """Streamed and not."""
    return both(client().chat.completions.create, **request(**more))


def text(**more):
    return twice(**more).choices[0].message.content


class References(unittest.TestCase):
    def test_greedy_text_and_counts_are_those_of_transformers(self):
        for model in MODELS:
            for case in references(model):
                with self.subTest(model=model, case=case["name"]):
                    first = case["history"][0]["question"] if case["history"] else case["question"]
                    messages = asking(first, data_url(picture(case, model)))
                    for turn, after in zip(case["history"], case["history"][1:] + [case]):
                        messages += [{"role": "assistant", "content": turn["answer"]},
                                     {"role": "user", "content": after["question"]}]
                    request = {"model": model, "temperature": 0, "max_tokens": 96, "messages": messages}
                    done = client(model).chat.completions.create(**request)
                    self.assertEqual(done.choices[0].message.content, case["answer"])
                    self.assertEqual(done.choices[0].finish_reason, "stop")
                    self.assertEqual(done.usage.prompt_tokens, case["prompt_tokens"])
                    # The reference counts the end of text among its tokens.
                    self.assertEqual(done.usage.completion_tokens, case["completion_tokens"] - 1)
                    again = streamed(client(model).chat.completions.create(
                        **request, stream=True, stream_options={"include_usage": True}))
                    self.assertEqual(again[:2], (case["answer"], "stop"))
                    self.assertEqual(again[2].completion_tokens, done.usage.completion_tokens)
                    for chunk in again[3]:
                        for choice in chunk.choices:
                            self.assertNotIn("\ufffd", choice.delta.content or "")


class Answers(unittest.TestCase):
    def test_the_models_are_listed(self):
        self.assertEqual([model.id for model in client().models.list()], [LLAVA])
        self.assertEqual(client().models.retrieve(LLAVA).id, LLAVA)
        with self.assertRaises(openai.NotFoundError):
            client().models.retrieve("gpt-4o")

    def test_a_repeated_prompt_is_counted_as_cached(self):
        messages = asking("How many circles are there here, do you think?", demo())
        first, second = ask(messages=messages), ask(messages=messages)
        self.assertEqual(first.choices[0].message.content, second.choices[0].message.content)
        tokens = second.usage.prompt_tokens
        self.assertEqual(second.usage.prompt_tokens_details.cached_tokens, (tokens - 1) // 32 * 32)
        self.assertGreater(tokens, 196)

    def test_developer_and_system_are_the_same(self):
        def counted(role):
            done = twice(messages=[{"role": role, "content": "Answer in one word."}, *asking(QUESTION)], max_tokens=8)
            return done.usage.prompt_tokens, done.choices[0].message.content
        self.assertEqual(counted("system"), counted("developer"))
        self.assertGreater(counted("system")[0], ask(messages=asking(QUESTION), max_tokens=8).usage.prompt_tokens)

    def test_several_answers_share_their_prompt(self):
        # Without the end of text, so that answers have the same length.
        more = {"n": 4, "temperature": 1.5, "seed": 3, "max_tokens": 8, "extra_body": {"ignore_eos": True}}
        done = ask(**more, messages=asking("Which shapes are red, and which are not?", demo()))
        self.assertEqual([choice.index for choice in done.choices], [0, 1, 2, 3])
        self.assertGreater(len({choice.message.content for choice in done.choices}), 1)
        self.assertEqual(done.usage.completion_tokens, 32)
        one = ask(messages=asking("Which shapes are red, and which are not?", demo()))
        self.assertEqual(done.usage.prompt_tokens, one.usage.prompt_tokens)
        texts, reasons = [""] * 4, {}
        for chunk in ask(**more, messages=asking("Which shapes are red, and which are not?", demo()), stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
        self.assertEqual(texts, [choice.message.content for choice in done.choices])
        self.assertEqual(reasons, dict.fromkeys(range(4), "length"))

    def test_a_seed_repeats_and_another_does_not(self):
        def sampled(seed):
            return text(seed=seed, temperature=1.8, max_tokens=24, extra_body={"ignore_eos": True})
        self.assertEqual(sampled(5), sampled(5))
        self.assertNotEqual(sampled(5), sampled(6))

    def test_narrow_sampling_is_greedy(self):
        greedy = text(extra_body={"ignore_eos": True})
        for seed in range(4):
            wide = text(temperature=2, seed=seed, extra_body={"ignore_eos": True})
            self.assertNotEqual(wide, greedy)
            for narrow in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}):
                self.assertEqual(text(temperature=2, seed=seed, extra_body={"ignore_eos": True, **narrow}), greedy)

    def test_only_the_likeliest_are_drawn(self):
        places = set()
        for seed in range(4):
            more = {"temperature": 2, "seed": seed, "logprobs": True, "top_logprobs": 20}
            done = twice(**more, extra_body={"ignore_eos": True, "top_k": 3})
            for token in done.choices[0].logprobs.content:
                places.add([other.logprob for other in token.top_logprobs].index(token.logprob))
        self.assertEqual(places, {0, 1, 2})

    def test_biases_and_penalties_change_what_is_said(self):
        first = ask(logprobs=True, max_tokens=1).choices[0].logprobs.content[0]
        ids = tokenize(first.token)
        self.assertNotEqual(text(logit_bias={str(ids[-1]): -100}, max_tokens=1), text(max_tokens=1))
        other = tokenize("Q")[-1]
        self.assertEqual(text(logit_bias={str(other): 100}, max_tokens=3), "QQQ")
        # Past its end the answer repeats itself, and the penalties have something to weaken.
        repeating = text(extra_body={"ignore_eos": True})
        for penalty in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
            self.assertNotEqual(text(extra_body={"ignore_eos": True, penalty: 2}), repeating)

    def test_limits_of_length(self):
        done = twice(max_tokens=3)
        self.assertEqual((done.usage.completion_tokens, done.choices[0].finish_reason), (3, "length"))
        done = twice(max_tokens=60, max_completion_tokens=2)
        self.assertEqual((done.usage.completion_tokens, done.choices[0].finish_reason), (2, "length"))
        natural = ask().usage.completion_tokens
        least = twice(extra_body={"min_tokens": natural + 5}).usage.completion_tokens
        self.assertGreaterEqual(least, natural + 5)
        self.assertEqual(twice(extra_body={"ignore_eos": True}).usage.completion_tokens, 64)

    def test_stop_strings_are_never_sent_wherever_chunks_end(self):
        whole = text()
        for stop in (whole[5:9], whole[-7:-2], [whole[12:20], "no such text"]):
            expected = whole[:min(whole.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in whole)]
            done = ask(stop=stop)
            self.assertEqual((done.choices[0].message.content, done.choices[0].finish_reason), (expected, "stop"))
            got, reason, _, _ = streamed(ask(stop=stop, stream=True))
            self.assertEqual((got, reason), (expected, "stop"))

    def test_stop_tokens_end_the_answer_before_them(self):
        tokens = ask(logprobs=True).choices[0].logprobs.content
        ids = tokenize("".join(token.token for token in tokens))
        done = twice(extra_body={"stop_token_ids": [ids[-1]]})
        self.assertEqual(done.choices[0].finish_reason, "stop")
        self.assertLess(len(done.choices[0].message.content), len(text()))

    def test_logprobs_are_those_of_the_answer(self):
        done = ask(logprobs=True, top_logprobs=20)
        self.check_logprobs(done.choices[0].message.content, done.choices[0].logprobs.content)
        said, _, _, chunks = streamed(ask(logprobs=True, top_logprobs=20, stream=True))
        content = [token for chunk in chunks for choice in chunk.choices if choice.logprobs
                   for token in choice.logprobs.content]
        self.check_logprobs(said, content)
        self.assertIsNone(ask().choices[0].logprobs)

    def check_logprobs(self, said, content):
        self.assertEqual(b"".join(bytes(token.bytes) for token in content).decode().lstrip(), said.lstrip())
        for token in content:
            top = [other.logprob for other in token.top_logprobs]
            self.assertEqual(len(top), 20)
            self.assertEqual(top, sorted(top, reverse=True))
            self.assertEqual(token.logprob, top[0], "greedy takes the likeliest")
            self.assertLessEqual(sum(map(math.exp, top)), 1.001)

    def test_chinese_and_emoji_stream_whole(self):
        for letters in ("图中有什么？", "🙂👩‍👩‍👧 好"):
            said = text(messages=asking(letters), max_tokens=48, temperature=1.4, seed=11)
            got, _, _, chunks = streamed(
                ask(messages=asking(letters), max_tokens=48, temperature=1.4, seed=11, stream=True))
            self.assertEqual(got, said)
            for chunk in chunks[:-2]:
                for choice in chunk.choices:
                    self.assertNotIn("\ufffd", choice.delta.content or "")
        forced = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "🙂 好 👩‍👩‍👧"}}}
        got, reason, _, chunks = streamed(ask(response_format=forced, stream=True))
        self.assertEqual((got, reason), ('"🙂 好 👩‍👩‍👧"', "stop"))
        self.assertTrue(all("\ufffd" not in (choice.delta.content or "") for chunk in chunks for choice in chunk.choices))

    def test_unknown_fields_are_ignored_and_wrong_types_named(self):
        text(extra_body={"what": {"is": "this"}, "user": "me"})
        for field, wrong in {"temperature": "hot", "max_tokens": -1, "stop": 5, "n": "two", "logprobs": "yes",
                             "logit_bias": [], "tools": {}, "response_format": "json", "seed": 0.5,
                             "messages": "hi", "top_k": "x", "stream": 1, "tool_choice": 7}.items():
            with self.subTest(field=field), self.assertRaises(openai.BadRequestError) as refused:
                ask(extra_body={field: wrong})
            self.assertEqual(refused.exception.param, field)
            self.assertIn(field, refused.exception.body["message"])

    def test_a_picture_of_the_future_is_refused_by_its_place(self):
        with self.assertRaises(openai.BadRequestError) as refused:
            ask(messages=asking(QUESTION, "data:image/png;base64,aGVsbG8="))
        self.assertEqual(refused.exception.param, "messages[0].content[0].image_url")

    def test_many_pictures(self):
        first, second = demo(), data_url(picture(references()[1]))

        def told(*urls):
            done = twice(messages=asking(QUESTION, *urls), logprobs=True)
            return done.usage.prompt_tokens, tuple(token.logprob for token in done.choices[0].logprobs.content)
        one, several = told(first)[0], [told(first, second), told(second, first), told(first, first)]
        self.assertEqual({tokens for tokens, _ in several}, {tokenized(asking(QUESTION, first, second))})
        self.assertGreaterEqual(several[0][0], one + 196)
        self.assertEqual(len(set(several)), 3, "each is seen, and in its place")
        messages = [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": first}}, {"type": "text", "text": "and"},
            {"type": "image_url", "image_url": {"url": second}}, {"type": "text", "text": QUESTION}]}]
        self.assertGreater(twice(messages=messages, max_tokens=4).usage.prompt_tokens, several[0][0])

    def test_little_detail_takes_fewer_tokens(self):
        model, case = "tiny-internvl", references("tiny-internvl")[0]

        def counted(detail):
            messages = asking(QUESTION, data_url(picture(case, model)))
            messages[0]["content"][0]["image_url"]["detail"] = detail
            return both(client(model).chat.completions.create, **request(model=model, messages=messages)).usage.prompt_tokens
        self.assertLess(counted("low"), counted("high"))
        self.assertEqual(counted("auto"), counted("high"))


def tokenized(messages):
    return client().post("../tokenize", body={"messages": messages}, cast_to=object)["count"]


def tokenize(letters):
    body = {"prompt": letters, "add_special_tokens": False}
    return client().post("../tokenize", body=body, cast_to=object)["tokens"]


if __name__ == "__main__":
    unittest.main()
