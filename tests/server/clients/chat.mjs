// The official npm client of OpenAI's API against our server: node chat.mjs PACKAGES SCENE URL, prints JSON.
import { createRequire } from "node:module";
import { join } from "node:path";

const [packages, scene, baseURL] = process.argv.slice(2);
const { OpenAI, ...errors } = createRequire(join(packages, "package.json"))("openai");
const client = new OpenAI({ baseURL, maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "What is 2+2?" }];
const asked = { model: "m+self_consistency", messages, max_tokens: 64, outthink: { n: 3 } };
const text = (chunk) => chunk.choices[0]?.delta.content ?? "";

/** What a call fails with, in words. */
async function failing(call) {
  try {
    await call;
  } catch (error) {
    const name = Object.keys(errors).find((name) => errors[name] === error.constructor);
    return { told: [name, error.status, error.code, error.param], headers: error.headers };
  }
  throw new Error("it has not failed");
}

const scenes = {
  async plain() {
    const { data, response } = await client.chat.completions.create(asked).withResponse();
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    return {
      content: data.choices[0].message.content,
      usage: data.usage,
      outthink: data.outthink,
      tokens: response.headers.get("x-litellm-total-tokens"),
      models,
    };
  },

  async stream() {
    let whole = "";
    let last;
    for await (last of await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    })) whole += text(last);
    const { usage, outthink } = last;
    let passed = "";
    for await (const chunk of await client.chat.completions.create({
      ...asked,
      model: "m+none",
      outthink: undefined,
      stream: true,
    })) passed += text(chunk);
    const helper = await client.chat.completions.stream(asked).finalContent();
    return { whole, usage, samples: outthink.samples, passed, helper };
  },

  async tools() {
    const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
    const tools = [{ type: "function", function: { name: "Weather", parameters } }];
    const { message, finish_reason: finish } = (await client.chat.completions.create({ ...asked, tools })).choices[0];
    const [call] = message.tool_calls;
    const result = { role: "tool", tool_call_id: call.id, content: "21 degrees" };
    const turns = [...messages, message, result];
    const last = await client.chat.completions.create({ ...asked, messages: turns, tools });
    return { city: JSON.parse(call.function.arguments).city, finish, answer: last.choices[0].message.content };
  },

  async errors() {
    const one = { model: "m+none", messages };
    const stranger = client.withOptions({ apiKey: "wrong" });
    const bad = await failing(client.chat.completions.create({ ...one, temperature: 3 }));
    const key = await failing(stranger.chat.completions.create(one));
    const model = await failing(client.chat.completions.create({ ...one, model: "x" }));
    const rate = await failing(client.chat.completions.create(one));
    const server = await failing(client.chat.completions.create(one));
    const again = await client.chat.completions.create(one, { maxRetries: 2 });
    return {
      bad: bad.told,
      key: key.told,
      model: model.told,
      rate: rate.told,
      after: rate.headers.get("retry-after"),
      server: server.told,
      again: again.choices[0].message.content,
    };
  },

  async abort() {
    const one = { model: "m+none", messages };
    const control = new AbortController();
    setTimeout(() => control.abort(), 300);
    const whole = await failing(client.chat.completions.create(one, { signal: control.signal }));
    const stream = await client.chat.completions.create({ ...one, stream: true });
    let first;
    for await (const chunk of stream) {
      first ??= text(chunk); // more of them may have come already
      stream.controller.abort();
    }
    return { whole: whole.told[0], first };
  },
};

console.log(JSON.stringify(await scenes[scene]()));
