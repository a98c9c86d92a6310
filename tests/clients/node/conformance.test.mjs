// The official client for Node against the server whose address is in LLAVA.
import assert from "node:assert/strict";
import { test } from "node:test";

import { OpenAI, both, cases, connect, messages, model, picture, url } from "./setting.mjs";

const base = process.env.LLAVA;
const client = connect(base);
// Asked about the first picture, streamed and not.
const ask = (more) => both(client.chat.completions, { model, temperature: 0, max_tokens: 24, messages: messages(cases[0]), ...more });
const text = async (more) => (await ask(more)).choices[0].message.content;
const post = (path, body) => client.post("/../" + path, { body });

test("the models are listed", async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  assert.deepEqual(ids, [model]);
  await assert.rejects(client.models.retrieve("gpt-4o"), OpenAI.NotFoundError);
});

test("answers are those of the reference, streamed and not", async () => {
  for (const c of cases) {
    const done = await both(client.chat.completions, { model, temperature: 0, max_tokens: 96, messages: messages(c) });
    assert.equal(done.choices[0].message.content, c.answer);
    assert.equal(done.usage.prompt_tokens, c.prompt_tokens);
  }
});

test("each of several pictures is seen, in its place, streamed, not and in a form", async () => {
  const [first, second] = cases;
  const told = async (...about) => {
    const done = await ask({ messages: messages(...about), logprobs: true });
    return [done.usage.prompt_tokens, ...done.choices[0].logprobs.content.map((token) => token.logprob)].join();
  };
  const same = { ...second, question: first.question };
  assert.equal(new Set([await told(first, second), await told(same, first), await told(first, first)]).size, 3);
  const done = await ask({ messages: messages(first, second) });
  assert.ok(done.usage.prompt_tokens >= first.prompt_tokens + 196);
  const form = new FormData();
  form.set("prompt", first.question);
  form.set("temperature", "0");
  form.set("max_tokens", "24");
  for (const c of [first, second]) form.append("image", new Blob([picture(c)]), "x.png");
  const sent = await (await fetch(base + "/v1/chat/completions", { method: "POST", body: form })).json();
  assert.deepEqual([sent.choices, sent.usage.prompt_tokens], [done.choices, done.usage.prompt_tokens]);
});

test("the helpers for streams find the end and the calls", async () => {
  const request = { model, temperature: 0, messages: messages(cases[0]) };
  const said = await client.chat.completions.stream(request).finalContent();
  assert.equal(said, cases[0].answer);
  const tools = [{ type: "function", function: { name: "count", parameters: { type: "object", required: ["n"],
    additionalProperties: false, properties: { n: { type: "integer", minimum: 0, maximum: 9 } } } } }];
  const calling = { ...request, tools, tool_choice: "required", parallel_tool_calls: false };
  const end = await client.chat.completions.stream(calling).finalChatCompletion();
  assert.equal(end.choices[0].finish_reason, "tool_calls");
  const whole = await client.chat.completions.create(calling);
  assert.equal(end.choices[0].message.tool_calls[0].function.arguments, whole.choices[0].message.tool_calls[0].function.arguments);
  assert.ok(Number.isInteger(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments).n));
});

test("several answers share their prompt", async () => {
  const one = await ask({ ignore_eos: true });
  const several = await ask({ n: 3, temperature: 1.5, seed: 2, ignore_eos: true });
  assert.equal(several.choices.length, 3);
  // The prompt counts once, and every answer in full.
  const { prompt_tokens } = one.usage;
  const { prompt_tokens_details, ...counts } = several.usage;
  assert.deepEqual(counts, { prompt_tokens, completion_tokens: 72, total_tokens: prompt_tokens + 72 });
  assert.ok(prompt_tokens_details.cached_tokens < prompt_tokens);
});

test("sampling is what it is asked to be", async () => {
  const long = { ignore_eos: true };
  const greedy = await text(long);
  const wide = { ...long, temperature: 2, seed: 5 };
  assert.equal(await text(wide), await text(wide));
  assert.notEqual(await text(wide), await text({ ...wide, seed: 6 }));
  assert.notEqual(await text(wide), greedy);
  for (const narrow of [{ top_k: 1 }, { min_p: 1 }, { top_p: 1e-6 }]) assert.equal(await text({ ...wide, ...narrow }), greedy);
  const { choices } = await ask({ ...wide, top_k: 3, logprobs: true, top_logprobs: 20 });
  const places = choices[0].logprobs.content.map((token) => token.top_logprobs.findIndex((other) => other.logprob === token.logprob));
  assert.deepEqual([Math.min(...places), Math.max(...places)], [0, 2]);
  // Past its end the answer repeats itself, and the penalties have something to weaken.
  const repeating = await text({ ...long, max_tokens: 64 });
  for (const penalty of ["presence_penalty", "frequency_penalty", "repetition_penalty"]) {
    assert.notEqual(await text({ ...long, max_tokens: 64, [penalty]: 2 }), repeating, penalty);
  }
  const ids = (await post("tokenize", { prompt: "Q", add_special_tokens: false })).tokens;
  assert.equal(await text({ logit_bias: { [ids.at(-1)]: 100 }, max_tokens: 3 }), "QQQ");
});

test("answers end where they are asked to", async () => {
  const whole = await ask({});
  const said = whole.choices[0].message.content;
  const natural = whole.usage.completion_tokens;
  for (const limit of [{ max_tokens: 2 }, { max_tokens: 20, max_completion_tokens: 2 }]) {
    const cut = await ask(limit);
    assert.deepEqual([cut.usage.completion_tokens, cut.choices[0].finish_reason], [2, "length"]);
  }
  assert.ok((await ask({ min_tokens: natural + 5 })).usage.completion_tokens >= natural + 5);
  for (const stop of [said.slice(6, 9), [said.slice(6, 9), "no such text"]]) {
    const stopped = (await ask({ stop })).choices[0];
    assert.deepEqual([stopped.message.content, stopped.finish_reason], [said.slice(0, 6), "stop"]);
  }
  const ids = (await post("tokenize", { prompt: said, add_special_tokens: false })).tokens;
  const stopped = (await ask({ stop_token_ids: [ids.at(-1)] })).choices[0];
  assert.equal(stopped.finish_reason, "stop");
  assert.ok(stopped.message.content.length < said.length && said.startsWith(stopped.message.content));
});

test("probabilities are those of the answer", async () => {
  const [{ message, logprobs }] = (await ask({ logprobs: true, top_logprobs: 5 })).choices;
  const bytes = logprobs.content.flatMap((token) => token.bytes);
  assert.equal(new TextDecoder().decode(new Uint8Array(bytes)).trimStart(), message.content.trimStart());
  for (const token of logprobs.content) {
    assert.equal(token.top_logprobs.length, 5);
    assert.equal(token.logprob, token.top_logprobs[0].logprob, "greedy takes the likeliest");
  }
});

test("answers have the form that is asked for", async () => {
  const schema = { type: "object", required: ["colour"], additionalProperties: false, properties: { colour: { enum: ["red", "blue"] } } };
  const formed = await text({ max_tokens: 64, response_format: { type: "json_schema", json_schema: { name: "x", schema } } });
  assert.ok(["red", "blue"].includes(JSON.parse(formed).colour));
  // Of itself this model seldom ends a string or an object.
  const ids = await Promise.all([...'"}'].map(async (prompt) => (await post("tokenize", { prompt, add_special_tokens: false })).tokens.at(-1)));
  const object = { response_format: { type: "json_object" }, logit_bias: Object.fromEntries(ids.map((id) => [id, 8])), max_tokens: 400 };
  const ended = [];
  for (const seed of [0, 1, 2, 3]) {
    const [{ message, finish_reason }] = (await ask({ ...object, temperature: 1, seed })).choices;
    assert.ok(message.content.startsWith("{"));
    if (finish_reason === "stop") ended.push(JSON.parse(message.content));
  }
  assert.ok(ended.length > 0 && ended.every((object) => typeof object === "object"), "none was complete");
  const tools = [{ type: "function", function: { name: "paint", parameters: { type: "object", required: ["colour"],
    additionalProperties: false, properties: { colour: { enum: ["red", "blue"] } } } } }];
  for (const choice of ["required", { type: "function", function: { name: "paint" } }]) {
    const [called] = (await ask({ max_tokens: 200, tools, tool_choice: choice, parallel_tool_calls: false })).choices;
    assert.deepEqual([called.finish_reason, called.message.tool_calls.length], ["tool_calls", 1]);
  }
});

test("system and developer are the same", async () => {
  const asked = [{ role: "user", content: cases[0].question }];
  const counted = async (...before) => {
    const done = await ask({ messages: [...before, ...asked] });
    return [done.usage.prompt_tokens, done.choices[0].message.content];
  };
  const content = "Answer in one word.";
  assert.deepEqual(await counted({ role: "system", content }), await counted({ role: "developer", content }));
  assert.ok((await counted({ role: "system", content }))[0] > (await counted())[0]);
});

test("tokens are told, there and back", async () => {
  for (const said of ["What is a triangle?", "图中有 3 个图形。", "🙂👩‍👩‍👧"]) {
    const { tokens, count } = await post("tokenize", { prompt: " " + said, add_special_tokens: false });
    assert.equal(tokens.length, count);
    assert.equal((await post("detokenize", { tokens })).prompt.trim(), said);
  }
  assert.equal((await post("tokenize", { messages: messages(cases[0]) })).count, cases[0].prompt_tokens);
});

test("completions and responses", async () => {
  const prompt = "USER: hi ASSISTANT:";
  const done = await both(client.completions, { model, prompt, max_tokens: 4, temperature: 0 });
  assert.ok(done.usage.completion_tokens <= 4);
  const several = await both(client.completions, { model, prompt: [prompt, "USER: 你好 ASSISTANT:"], n: 2, max_tokens: 6, seed: 1, logprobs: 2 });
  assert.deepEqual(several.choices.map((choice) => choice.index), [0, 1, 2, 3]);
  const schema = { type: "object", required: ["n"], additionalProperties: false, properties: { n: { type: "integer", minimum: 0, maximum: 9 } } };
  const response_format = { type: "json_schema", json_schema: { name: "x", schema } };
  const formed = await both(client.completions, { model, prompt, max_tokens: 64, temperature: 0, response_format });
  assert.ok(Number.isInteger(JSON.parse(formed.choices[0].text).n));
  const input = [{ role: "user", content: [{ type: "input_image", image_url: url(cases[0]), detail: "auto" },
    { type: "input_text", text: cases[0].question }] }];
  const whole = await client.responses.create({ model, temperature: 0, input });
  assert.equal(whole.output_text, cases[0].answer);
  const last = await client.responses.stream({ model, temperature: 0, input }).finalResponse();
  assert.equal(last.output_text, cases[0].answer);
  const form = { model, temperature: 0, input, text: { format: { type: "json_schema", name: "x", schema } } };
  const { output_text } = await client.responses.create(form);
  assert.ok(Number.isInteger(JSON.parse(output_text).n));
  assert.equal((await client.responses.stream(form).finalResponse()).output_text, output_text);
});

test("a form with a file gives the same answer", async () => {
  const form = new FormData();
  form.set("prompt", cases[0].question);
  form.set("temperature", "0");
  form.set("n", "2");
  form.set("image", new Blob([picture(cases[0])]), "x.png");
  const done = await (await fetch(base + "/v1/chat/completions", { method: "POST", body: form })).json();
  assert.deepEqual(done.choices.map((choice) => choice.message.content), [cases[0].answer, cases[0].answer]);
});

test("errors have the client's types and name the field", async () => {
  const wrong = client.chat.completions.create({ model, messages: messages(cases[0]), temperature: 9 });
  await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  const other = client.chat.completions.create({ model: "gpt-4o", messages: messages(cases[0]) });
  await assert.rejects(other, (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  const large = client.chat.completions.create({ model, messages: [{ role: "user", content: "a".repeat(65 << 20) }] });
  await assert.rejects(large, (error) => error instanceof OpenAI.APIError && error.status === 413 && error.code === "body_too_large");
});
