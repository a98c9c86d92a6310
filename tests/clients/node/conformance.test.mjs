// The official client for Node against the server whose address is in LLAVA.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createRequire } from "node:module";

// The packages lie outside the checkout, where NODE_PACKAGES says.
const { default: OpenAI } = await import(createRequire(process.env.NODE_PACKAGES + "/").resolve("openai"));

const base = process.env.LLAVA;
const model = "tiny-llava";
const client = new OpenAI({ baseURL: base + "/v1", apiKey: "none", maxRetries: 0 });
const references = new URL("../../../examples/tiny-llava/references/", import.meta.url);
const cases = JSON.parse(readFileSync(new URL("references.json", references))).cases.filter((c) => c.history.length === 0);
const url = (c) => "data:image/png;base64," + readFileSync(new URL(c.picture, references)).toString("base64");
const messages = (c) => [
  { role: "user", content: [{ type: "image_url", image_url: { url: url(c) } }, { type: "text", text: c.question }] },
];

test("the models are listed", async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  assert.deepEqual(ids, [model]);
  await assert.rejects(client.models.retrieve("gpt-4o"), OpenAI.NotFoundError);
});

test("answers are those of the reference, streamed and not", async () => {
  for (const c of cases) {
    const request = { model, temperature: 0, max_tokens: 96, messages: messages(c) };
    const done = await client.chat.completions.create(request);
    assert.equal(done.choices[0].message.content, c.answer);
    assert.equal(done.usage.prompt_tokens, c.prompt_tokens);
    let text = "";
    let usage;
    const stream = await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, c.answer);
    assert.equal(usage.completion_tokens, done.usage.completion_tokens);
  }
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

test("parameters have their effect", async () => {
  const ask = (more) => client.chat.completions.create({ model, temperature: 0, max_tokens: 24, messages: messages(cases[0]), ...more });
  const whole = (await ask({})).choices[0].message.content;
  const one = await ask({ ignore_eos: true });
  const several = await ask({ n: 3, temperature: 1.5, seed: 2, ignore_eos: true });
  assert.equal(several.choices.length, 3);
  // The prompt counts once, and every answer in full.
  const { prompt_tokens } = one.usage;
  const { prompt_tokens_details, ...counts } = several.usage;
  assert.deepEqual(counts, { prompt_tokens, completion_tokens: 72, total_tokens: prompt_tokens + 72 });
  assert.ok(prompt_tokens_details.cached_tokens < prompt_tokens);
  const streams = await ask({ n: 3, temperature: 1.5, seed: 2, ignore_eos: true, stream: true, stream_options: { include_usage: true } });
  let last;
  for await (const chunk of streams) last = chunk;
  assert.deepEqual([last.choices, last.usage.prompt_tokens, last.usage.completion_tokens], [[], prompt_tokens, 72]);
  assert.equal((await ask({ max_completion_tokens: 2 })).usage.completion_tokens, 2);
  assert.equal((await ask({ stop: [whole.slice(6, 9)] })).choices[0].message.content, whole.slice(0, 6));
  const told = await ask({ logprobs: true, top_logprobs: 5 });
  assert.ok(told.choices[0].logprobs.content.every((token) => token.top_logprobs.length === 5));
  const schema = { type: "object", required: ["colour"], additionalProperties: false, properties: { colour: { enum: ["red", "blue"] } } };
  const formed = await ask({ max_tokens: 64, response_format: { type: "json_schema", json_schema: { name: "x", schema } } });
  assert.ok(["red", "blue"].includes(JSON.parse(formed.choices[0].message.content).colour));
});

test("completions and responses", async () => {
  const text = await client.completions.create({ model, prompt: "USER: hi ASSISTANT:", max_tokens: 4, temperature: 0 });
  assert.ok(text.usage.completion_tokens <= 4);
  let streamed = "";
  for await (const chunk of await client.completions.create({ model, prompt: "USER: hi ASSISTANT:", max_tokens: 4, temperature: 0, stream: true })) {
    streamed += chunk.choices[0]?.text ?? "";
  }
  assert.equal(streamed, text.choices[0].text);
  const input = [{ role: "user", content: [{ type: "input_image", image_url: url(cases[0]), detail: "auto" },
    { type: "input_text", text: cases[0].question }] }];
  const done = await client.responses.create({ model, temperature: 0, input });
  assert.equal(done.output_text, cases[0].answer);
  const last = await client.responses.stream({ model, temperature: 0, input }).finalResponse();
  assert.equal(last.output_text, cases[0].answer);
});

test("a form with a file gives the same answer", async () => {
  const form = new FormData();
  form.set("prompt", cases[0].question);
  form.set("temperature", "0");
  form.set("n", "2");
  form.set("image", new Blob([readFileSync(new URL(cases[0].picture, references))]), "x.png");
  const done = await (await fetch(base + "/v1/chat/completions", { method: "POST", body: form })).json();
  assert.deepEqual(done.choices.map((choice) => choice.message.content), [cases[0].answer, cases[0].answer]);
});

test("errors have the client's types and name the field", async () => {
  const wrong = client.chat.completions.create({ model, messages: messages(cases[0]), temperature: 9 });
  await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  const other = client.chat.completions.create({ model: "gpt-4o", messages: messages(cases[0]) });
  await assert.rejects(other, (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
});
