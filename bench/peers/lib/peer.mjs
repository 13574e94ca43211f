// What the peers written in JavaScript share: the command line, the message, the provider's client, and how each figure is
// taken. A peer gives the functions that use its queue; README.md says what each command prints.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

/** Loads a package from where scripts/peers.sh put it. */
export const load = createRequire(`${process.env.PEER_MODULES}/`);
export const installedVersion = (name) => JSON.parse(readFileSync(`${process.env.PEER_MODULES}/node_modules/${name}/package.json`, 'utf8')).version;

const { Client } = load('pg');
const { Pool } = load('undici');

/** The peer has no such thing: exit code 3 and the reason. */
export class Refusal extends Error {}

/** An SMS of 100 characters with its recipient, a small meta and its number. */
export const message = (id) => ({
  id,
  to: `+9665${String(id).padStart(8, '0')}`,
  text: `Order ${id} is on its way and arrives between 10 and 12. Reply STOP to hear no more of it. `.padEnd(100, '.'),
  meta: { order: id, kind: 'delivery' },
});

/** The messages first … first + count - 1, in pieces. */
export function* pieces(count, size) {
  for (let first = 0; first < count; first += size) {
    yield Array.from({ length: Math.min(size, count - first) }, (_, i) => message(first + i));
  }
}

export async function connect(url) {
  const client = new Client({ connectionString: url });
  await client.connect();
  return client;
}

/** Runs `use` on a connection of its own. */
export async function withClient(url, use) {
  const client = await connect(url);
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** What a worker does with a message: one POST over a connection kept alive, or nothing. */
export function provider(url, concurrency) {
  if (url === 'none') return { send: async () => {}, close: async () => {} };
  const path = new URL('/send', url).pathname;
  const pool = new Pool(new URL(url).origin, { connections: concurrency, pipelining: 1 });
  const headers = { 'content-type': 'application/json' };
  return {
    async send(payload) {
      const { statusCode, body } = await pool.request({ path, method: 'POST', headers, body: JSON.stringify(payload) });
      await body.dump();
      if (statusCode !== 200) throw new Error(`the provider answered ${statusCode}`);
    },
    close: () => pool.close(),
  };
}

/** Counts what ended; `all` waits for the last, and fails when nothing ends for a minute. */
export function counter(goal) {
  let ended = 0;
  let seen = 0;
  let settle;
  const all = new Promise((resolve, reject) => (settle = { resolve, reject }));
  const watch = setInterval(() => {
    if (ended === seen) settle.reject(new Error(`nothing ended for a minute: ${ended} of ${goal} have`));
    seen = ended;
  }, 60_000);
  watch.unref();
  return {
    all,
    one() {
      ended += 1;
      if (ended === goal) {
        clearInterval(watch);
        settle.resolve();
      }
    },
  };
}

/** Asks until a statement's first column is true: the last end is recorded then. */
export async function until(client, statement) {
  while (!Object.values((await client.query(statement)).rows[0])[0]) await sleep(2);
}

/** A function that runs one prepared statement on a connection of its own. */
export async function prepared(url, name, text, values) {
  const client = await connect(url);
  return { one: (id) => client.query({ name, text, values: values(id) }), end: () => client.end() };
}

const micros = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
export const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
export const since = (start) => (performance.now() - start) / 1000;

async function enqueue(peer, options) {
  const lanes = await Promise.all(Array.from({ length: options.clients }, () => peer.producer(options)));
  // Numbers of different runs differ, so that their keys do.
  let next = Math.floor(Math.random() * 9e6) * 1000;
  let messages = 0;
  const start = performance.now();
  const end = start + options.seconds * 1000;
  await Promise.all(lanes.map(async ({ one }) => {
    while (performance.now() < end) {
      await one(next++);
      messages += 1;
    }
  }));
  print({ messages, seconds: since(start) });
  await Promise.all(lanes.map((lane) => lane.end()));
}

/** The producer of `latency`: a process of its own, so that a busy worker does not hold up its clock. */
async function produce(peer, options) {
  const lanes = await Promise.all(Array.from({ length: 16 }, () => peer.producer({ ...options, wake: true })));
  const tails = lanes.map(() => Promise.resolve());
  const commits = [];
  const start = performance.now();
  for (let id = 0; id < options.messages; id += 1) {
    const wait = start + (id * 1000) / options.rate - performance.now();
    if (wait > 0) await sleep(wait);
    const lane = id % lanes.length;
    tails[lane] = tails[lane].then(() => lanes[lane].one(id)).then(() => commits.push({ id, committed_at_us: micros() }));
  }
  await Promise.all(tails);
  commits.forEach(print);
  await Promise.all(lanes.map((lane) => lane.end()));
}

async function latency(peer, options) {
  const http = provider(options.provider, 64);
  const count = counter(options.messages);
  const worker = await peer.worker({ ...options, concurrency: 64, wake: true }, http.send, count.one);
  await sleep(1000);
  const child = spawn(process.execPath, [process.argv[1], 'produce', '--url', options.url, '--messages', String(options.messages),
    '--rate', String(options.rate)], { stdio: 'inherit' });
  const code = await new Promise((resolve) => child.on('exit', resolve));
  if (code !== 0) throw new Error('the producer failed');
  await count.all;
  await worker.stop();
  await http.close();
}

async function drain(peer, options) {
  const http = provider(options.provider, options.concurrency);
  const count = counter(options.messages);
  await withClient(options.url, async (client) => {
    const worker = await peer.worker(options, http.send, count.one);
    await count.all;
    await peer.settled(client);
    print({ messages: options.messages, seconds: since(worker.started) });
    await worker.stop();
  });
  await http.close();
}

/** The client alone, with no database: a floor. */
async function http(_peer, options) {
  const client = provider(options.provider, options.concurrency);
  let next = 0;
  const start = performance.now();
  await Promise.all(Array.from({ length: options.concurrency }, async () => {
    while (next < options.messages) await client.send(message(next++));
  }));
  print({ messages: options.messages, seconds: since(start) });
  await client.close();
}

async function fill(peer, options) {
  const start = performance.now();
  const ready = await peer.fill(options);
  print({ messages: options.messages, seconds: since(ready ?? start) });
}

const COMMANDS = {
  versions: [[], async (peer) => print(await peer.versions())],
  setup: [['url'], (peer, options) => peer.setup(options)],
  fill: [['url', 'messages'], fill],
  enqueue: [['url', 'clients', 'seconds'], enqueue],
  drain: [['url', 'messages', 'concurrency', 'provider'], drain],
  latency: [['url', 'messages', 'rate', 'provider'], latency],
  produce: [['url', 'messages', 'rate'], produce],
  http: [['messages', 'concurrency', 'provider'], http],
};
const NUMBERS = ['messages', 'clients', 'seconds', 'concurrency', 'rate'];

class Usage extends Error {}

function parse(args) {
  const [command, ...rest] = args;
  if (!Object.hasOwn(COMMANDS, command ?? '')) throw new Usage(`the command is one of ${Object.keys(COMMANDS).join(', ')}`);
  const texts = Object.fromEntries(['url', 'provider', ...NUMBERS].map((name) => [name, { type: 'string' }]));
  let options;
  try {
    options = { ...parseArgs({ args: rest, options: { ...texts, keys: { type: 'boolean', default: false } } }).values };
  } catch (error) {
    throw new Usage(error.message);
  }
  const [needed] = COMMANDS[command];
  const missing = needed.find((name) => options[name] === undefined);
  if (missing) throw new Usage(`${command} needs --${missing}`);
  for (const name of NUMBERS.filter((known) => options[known] !== undefined)) {
    const number = Number(options[name]);
    const whole = name === 'seconds' || name === 'rate' || Number.isInteger(number);
    if (!(number > 0) || !whole) throw new Usage(`--${name} is a positive number`);
    options[name] = number;
  }
  return [command, options];
}

export async function main(peer) {
  try {
    const [command, options] = parse(process.argv.slice(2));
    await (peer.own?.[command]?.(options) ?? COMMANDS[command][1](peer, options));
    process.exit(0);
  } catch (error) {
    process.stderr.write(`${error instanceof Refusal || error instanceof Usage ? error.message : error.stack}\n`);
    process.exit(error instanceof Refusal ? 3 : error instanceof Usage ? 2 : 1);
  }
}
