// OpenAI's JavaScript client against a server that LANNER_URL names; tests/clients/test_javascript.py runs this.
import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";

const { default: OpenAI } = await import(pathToFileURL(process.env.LANNER_OPENAI));
const kind = process.env.LANNER_KIND;

function connect(apiKey = process.env.LANNER_KEY) {
  return new OpenAI({ baseURL: process.env.LANNER_URL + "/v1", apiKey, maxRetries: 0, timeout: 60_000 });
}

const client = connect();
const hi = [{ role: "user", content: "Hi" }];
const say = (text) => [{ role: "user", content: `[say ${text}]` }];
const chat = (more = {}, options) => client.chat.completions.create({ model: "test", messages: hi, ...more }, options);

async function textOf(stream) {
  let text = "";
  let last = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    last = chunk;
  }
  return { text, last };
}

function scripted() {
  test("it answers", async () => {
    const answer = await chat();
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.choices[0].message.content, "Hello world");
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.deepEqual([answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens], [20, 12, 32]);
  });
  test("it streams", async () => {
    const { text } = await textOf(await chat({ stream: true, messages: say("héllo 上海") }));
    assert.equal(text, "héllo 上海");
  });
  test("a stream counts", async () => {
    const { last } = await textOf(await chat({ stream: true, stream_options: { include_usage: true } }));
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 12);
  });
  test("the stream helper", async () => {
    const runner = client.chat.completions.stream({ model: "test", messages: hi });
    let text = "";
    runner.on("content", (delta) => (text += delta));
    assert.equal(await runner.finalContent(), "Hello world");
    assert.equal(text, "Hello world");
  });
  test("a stream that is left", async () => {
    const stream = await chat({ stream: true, messages: [{ role: "user", content: "[slow][endless]" }] });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
    assert.equal((await chat()).choices[0].message.content, "Hello world");
  });
  test("messages", async () => {
    const messages = [{ role: "developer", content: "Be kind." }, { role: "user", content: [{ type: "text", text: "Hi" }] },
      { role: "assistant", content: "Hello" }, ...say("again")];
    const answer = await chat({ messages });
    assert.equal(answer.choices[0].message.content, "again");
    assert.equal(answer.usage.prompt_tokens, "<system>Be kind.<user>Hi<assistant>Hello<user>[say again]<assistant>".length + 1);
  });
  test("several answers", async () => {
    const answer = await chat({ n: 3 });
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2]);
    assert.ok(answer.choices.every((choice) => choice.message.content === "Hello world"));
  });
  test("several streamed answers", async () => {
    const texts = ["", ""];
    for await (const chunk of await chat({ n: 2, stream: true })) {
      for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
    }
    assert.deepEqual(texts, ["Hello world", "Hello world"]);
  });
  test("stop", async () => assert.equal((await chat({ stop: ["o w"] })).choices[0].message.content, "Hell"));
  test("the longest answer", async () => {
    const choice = (await chat({ max_completion_tokens: 5 })).choices[0];
    assert.deepEqual([choice.message.content, choice.finish_reason], ["Hello", "length"]);
  });
  test("logprobs", async () => {
    const { content } = (await chat({ logprobs: true, top_logprobs: 1 })).choices[0].logprobs;
    assert.equal(content.map((token) => token.token).join(""), "Hello world");
    assert.deepEqual(content[0].bytes, [72]);
  });
  test("sampling settings", async () => {
    const answer = await chat({ temperature: 0.5, top_p: 0.9, seed: 7, presence_penalty: 1, frequency_penalty: 1, logit_bias: { 65: 1 } });
    assert.equal(answer.choices[0].message.content, "Hello world");
  });
  test("models", async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["test"]);
    assert.equal((await client.models.retrieve("test")).id, "test");
  });
  test("completions", async () => {
    const answer = await client.completions.create({ model: "test", prompt: ["a", "b"], echo: true });
    assert.deepEqual(answer.choices.map((choice) => choice.text), ["aHello world", "bHello world"]);
  });
  test("streamed completions", async () => {
    let text = "";
    for await (const chunk of await client.completions.create({ model: "test", prompt: "x", stream: true })) text += chunk.choices[0]?.text ?? "";
    assert.equal(text, "Hello world");
  });
  test("responses", async () => {
    const answer = await client.responses.create({ model: "test", input: "Hi", instructions: "Be kind." });
    assert.equal(answer.output_text, "Hello world");
    assert.equal(answer.status, "completed");
  });
  test("streamed responses", async () => {
    const stream = client.responses.stream({ model: "test", input: "Hi" });
    let text = "";
    for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
    assert.equal(text, "Hello world");
    assert.equal((await stream.finalResponse()).output_text, "Hello world");
  });
  test("an answer as it is on the wire", async () => {
    const raw = await chat({}, { headers: { "X-Request-Id": "mine" } }).asResponse();
    assert.equal(raw.headers.get("x-request-id"), "mine");
    assert.equal(raw.headers.get("content-type"), "application/json");
  });
  test("an unknown model", async () => {
    await assert.rejects(chat({ model: "other" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  });
  test("a wrong field", async () => {
    await assert.rejects(chat({ temperature: 3 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
    await assert.rejects(chat({ no_such_field: 1 }), (error) => error.param === "no_such_field");
  });
  test("too long", async () => {
    await assert.rejects(chat({ messages: [{ role: "user", content: "x".repeat(9000) }] }), { code: "context_length_exceeded" });
  });
  test("a failure of the engine", async () => {
    await assert.rejects(chat({ messages: [{ role: "user", content: "[fail]" }] }), OpenAI.InternalServerError);
  });
  test("a failure in a stream", async () => {
    await assert.rejects(async () => textOf(await chat({ stream: true, messages: [{ role: "user", content: "[fail]" }] })), OpenAI.APIError);
  });
  test("many at once", async () => {
    const answers = await Promise.all([...Array(32).keys()].map((i) => chat({ messages: say(`answer ${i}`) })));
    assert.deepEqual(answers.map((answer) => answer.choices[0].message.content), [...Array(32).keys()].map((i) => `answer ${i}`));
  });
}

function withKey() {
  test("the key opens", async () => assert.equal((await chat()).choices[0].message.content, "Hello world"));
  test("another does not", async () => {
    await assert.rejects(connect("wrong").chat.completions.create({ model: "test", messages: hi }), OpenAI.AuthenticationError);
  });
}

function real() {
  const france = [{ role: "user", content: "What is the capital of France?" }];
  const ask = (more = {}) => client.chat.completions.create({ model: "small", messages: france, temperature: 0, max_tokens: 16, ...more });
  const paris = "The capital of France is Paris.";
  test("it answers", async () => assert.equal((await ask()).choices[0].message.content, paris));
  test("it streams", async () => assert.equal((await textOf(await ask({ stream: true }))).text, paris));
  test("the same with a seed", async () => {
    const answers = await Promise.all([1, 2].map(() => ask({ temperature: 1.5, top_p: 1, seed: 11 })));
    assert.equal(answers[0].choices[0].message.content, answers[1].choices[0].message.content);
  });
  test("logprobs", async () => {
    const { content } = (await ask({ logprobs: true, top_logprobs: 3 })).choices[0].logprobs;
    assert.equal(content.map((token) => token.token).join(""), paris);
    assert.ok(content.every((token) => token.top_logprobs.length === 3 && token.logprob <= 0));
  });
  test("responses", async () => {
    const answer = await client.responses.create({ model: "small", input: france[0].content, temperature: 0, max_output_tokens: 16 });
    assert.equal(answer.output_text, paris);
  });
  test("embeddings", async () => {
    const answer = await client.embeddings.create({ model: "small", input: ["a cat", "a dog"] });
    assert.equal(answer.data.length, 2);
    for (const { embedding } of answer.data) assert.ok(Math.abs(embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);
  });
  test("too long", async () => {
    await assert.rejects(ask({ messages: [{ role: "user", content: "word ".repeat(2000) }] }), { code: "context_length_exceeded" });
  });
}

function tools() {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
  const said = '<think>Hm.</think>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>';
  const ofChat = { type: "function", function: { name: "get_weather", parameters } };
  const ofResponses = { type: "function", name: "get_weather", parameters, strict: true };
  test("a call", async () => {
    const choice = (await chat({ messages: say(said), tools: [ofChat] })).choices[0];
    assert.equal(choice.finish_reason, "tool_calls");
    assert.deepEqual(JSON.parse(choice.message.tool_calls[0].function.arguments), { city: "Rome" });
    assert.equal(choice.message.reasoning_content, "Hm.");
  });
  test("a streamed call", async () => {
    const stream = client.chat.completions.stream({ model: "test", messages: say(said), tools: [ofChat] });
    const call = await stream.finalFunctionToolCall();
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ["get_weather", { city: "Rome" }]);
  });
  test("a runner of tools", async () => {
    const asked = [];
    const run = (city) => (asked.push(city), "[say It is sunny.]");
    const runner = client.chat.completions.runTools({ model: "test", messages: say(said),
      tools: [{ type: "function", function: { function: ({ city }) => run(city), parse: JSON.parse, name: "get_weather", description: "", parameters } }] });
    assert.equal(await runner.finalContent(), "It is sunny.");
    assert.deepEqual(asked, ["Rome"]);
  });
  test("a call in responses", async () => {
    const answer = await client.responses.create({ model: "test", input: `[say ${said}]`, tools: [ofResponses] });
    assert.deepEqual(answer.output.map((item) => item.type), ["reasoning", "function_call"]);
    const call = answer.output[1];
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ["get_weather", { city: "Rome" }]);
    const input = [...say(said), ...answer.output, { type: "function_call_output", call_id: call.call_id, output: "[say It is sunny.]" }];
    assert.equal((await client.responses.create({ model: "test", input, tools: [ofResponses] })).output_text, "It is sunny.");
  });
  test("a streamed call in responses", async () => {
    const stream = client.responses.stream({ model: "test", input: `[say ${said}]`, tools: [ofResponses] });
    let written = "";
    for await (const event of stream) if (event.type === "response.function_call_arguments.delta") written += event.delta;
    assert.deepEqual(JSON.parse(written), { city: "Rome" });
    assert.deepEqual((await stream.finalResponse()).output.map((item) => item.type), ["reasoning", "function_call"]);
  });
}

({ scripted, key: withKey, real, tools })[kind]();
