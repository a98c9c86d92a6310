// Answers that end early, or are not begun, on servers of their own: the client leaves, there is no place, the server goes.
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import { OpenAI, connect, model, start, until } from "./setting.mjs";

// The longest answers that the checkpoint's context holds. Responses have no way past the end of text but a form.
const endless = { model, max_tokens: 900, temperature: 0, ignore_eos: true, stream: true };
const question = [{ role: "user", content: "What is a triangle?" }];
const numbers = { type: "json_schema", name: "x", schema: { type: "array", minItems: 800, items: { enum: [1, 2] } } };

// How each route is asked for a long stream, and the text of one of its events.
const routes = {
  chat: [(client, more) => client.chat.completions.create({ ...endless, messages: question, ...more }),
    (chunk) => chunk.choices[0].delta.content],
  completions: [(client, more) => client.completions.create({ ...endless, prompt: "A triangle", ...more }),
    (chunk) => chunk.choices[0].text],
  responses: [(client) => client.responses.create({
    model, input: "Count.", max_output_tokens: 900, temperature: 0, text: { format: numbers }, stream: true }),
    (event) => event.type === "response.output_text.delta" && event.delta],
};
const chat = routes.chat[0];

const metric = async (address, series) => {
  const lines = (await (await fetch(address + "/metrics")).text()).split("\n");
  return Number(lines.find((line) => line.startsWith(series + " ")).slice(series.length));
};
const cancelled = (address) => metric(address, 'vlm_requests_finished_total{reason="cancelled"}');

// Waits until nothing runs or waits, and so many have left.
const free = (address, gone) => until("the places are free", async () =>
  (await metric(address, "vlm_requests_running")) === 0 && (await cancelled(address)) >= gone &&
  (await metric(address, 'vlm_requests_waiting{stage="queue"}')) === 0);

test("who leaves frees the place, and one too many is told when to come back", async (t) => {
  const { address } = await start(t, "--max-concurrency", "1", "--max-queue", "1");
  const client = connect(address);
  let gone = 0;
  for (const [ask, text] of Object.values(routes)) {
    const stream = await ask(client);
    for await (const event of stream) {
      if (text(event)) stream.controller.abort();
    }
    await free(address, (gone += 1));
  }
  for await (const chunk of await chat(client)) {
    if (chunk.choices[0].delta.content) break;
  }
  await free(address, (gone += 1));
  const streams = [];
  const refused = async () => {
    for (let count = 0; count < 32; count += 1) streams.push(await chat(client));
  };
  await assert.rejects(refused, (error) => error instanceof OpenAI.RateLimitError && error.code === "queue_full" &&
    error.headers.get("retry-after") >= 1 && error.headers.get("retry-after") <= 60);
  for (const stream of streams) stream.controller.abort();
  await free(address, gone + 1);
  assert.equal((await chat(client, { stream: false, max_tokens: 2 })).usage.completion_tokens, 2);
});

test("a stream that is cut is an error of the client", async (t) => {
  const { server, address } = await start(t, "--max-concurrency", "16", "--drain-timeout-seconds", "0");
  const client = connect(address);
  // Beside so many others each takes seconds.
  const others = await routes.completions[0](client, { n: 13 });
  const streams = {};
  for (const [name, [ask, text]] of Object.entries(routes)) {
    const events = (await ask(client))[Symbol.asyncIterator]();
    let next;
    do next = await events.next();
    while (!next.done && !text(next.value));
    assert.ok(!next.done, name);
    streams[name] = events;
  }
  server.kill("SIGTERM");
  const ended = once(server, "exit");
  for (const [name, events] of Object.entries(streams)) {
    let last;
    const rest = async () => {
      for (let next = await events.next(); !next.done; next = await events.next()) last = next.value;
    };
    await assert.rejects(rest, (error) => error instanceof OpenAI.APIError && !(error instanceof OpenAI.APIConnectionError) &&
      error.code === "server_draining" && error.type === "service_unavailable_error", name);
    // Those who read events alone see it too.
    if (name === "responses") assert.deepEqual([last.type, last.response.status], ["response.failed", "failed"]);
  }
  others.controller.abort();
  assert.deepEqual(await ended, [0, null]);
});
