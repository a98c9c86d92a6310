// What the suites for Node share: the client, the pictures, what the reference answered, and how answers are read.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

// The packages lie outside the checkout, where NODE_PACKAGES says.
export const { default: OpenAI } = await import(createRequire(process.env.NODE_PACKAGES + "/").resolve("openai"));

export const model = "tiny-llava";
const folder = new URL(`../../../examples/${model}/`, import.meta.url);
const references = new URL("references/", folder);
export const cases = JSON.parse(readFileSync(new URL("references.json", references))).cases.filter((c) => c.history.length === 0);
export const picture = (c) => readFileSync(new URL(c.picture, references));
export const url = (c) => "data:image/png;base64," + picture(c).toString("base64");
// The question of the first of the cases, about the pictures of all of them.
export const messages = (...about) => [{ role: "user", content: [
  ...about.map((c) => ({ type: "image_url", image_url: { url: url(c) } })), { type: "text", text: about[0].question }] }];

export const connect = (address) => new OpenAI({ baseURL: address + "/v1", apiKey: "none", maxRetries: 0 });

// What choices say, or the pieces of them: by index the text, the calls, the tokens (if told) and the reason.
const said = (choices) => {
  const found = [];
  for (const { index, message, delta, text, logprobs, finish_reason } of choices) {
    const one = (found[index] ??= { text: "", calls: [], tokens: [], reason: null });
    const part = message ?? delta ?? { content: text };
    one.text += part.content ?? "";
    for (const [at, call] of (part.tool_calls ?? []).entries()) {
      const named = (one.calls[call.index ?? at] ??= { name: "", arguments: "" });
      named.name += call.function.name ?? "";
      named.arguments += call.function.arguments ?? "";
    }
    one.tokens.push(...(logprobs?.tokens ?? logprobs?.content?.map((token) => token.token) ?? []));
    one.reason = finish_reason ?? one.reason;
  }
  return found;
};

// The whole answer to a request that must give the same, choice by choice and at the same cost, as a stream.
export const both = async (endpoint, request) => {
  const whole = await endpoint.create(request);
  const chunks = [];
  for await (const chunk of await endpoint.create({ ...request, stream: true, stream_options: { include_usage: true } })) {
    chunks.push(chunk);
  }
  assert.ok(chunks.length > 1);
  assert.deepEqual(said(chunks.flatMap((chunk) => chunk.choices)), said(whole.choices));
  const counts = ({ prompt_tokens, completion_tokens }) => ({ prompt_tokens, completion_tokens });
  assert.deepEqual(counts(chunks.at(-1).usage), counts(whole.usage));
  return whole;
};

// A server of its own for a test, which ends with it; its process and address.
export const start = async (t, ...flags) => {
  const checkpoint = new URL("model", folder).pathname;
  const server = spawn(process.env.RUNTIME, ["serve", "--model", checkpoint, "--served-model-name", model,
    "--host", "127.0.0.1", "--port", "0", ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => server.kill("SIGKILL"));
  let address;
  const lines = createInterface({ input: server.stdout });
  for await (const line of lines) {
    address = line.match(/listening address=(\S+)/)?.[1];
    if (address) break;
  }
  assert.ok(address, "the server has ended");
  // Nobody reads the rest; a full pipe would stop the server.
  server.stdout.resume();
  await until("the server is ready", async () => (await fetch(`http://${address}/ready`)).ok);
  return { server, address: `http://${address}` };
};

export const until = async (what, condition) => {
  for (const begun = Date.now(); !(await condition()); await sleep(20)) {
    assert.ok(Date.now() - begun < 60_000, `not in time: ${what}`);
  }
};
