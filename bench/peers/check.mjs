// Checks what each command of each peer does, on a real server with small numbers; ./check calls it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createServer } from 'node:http';

const [url, ...chosen] = process.argv.slice(2);
const peers = import.meta.dirname;
const MESSAGES = 700; // more than any peer takes at once

let seen = [];
const server = createServer((request, response) => {
  let body = '';
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    const { id, text, to } = JSON.parse(body);
    seen.push({ id, right: request.method === 'POST' && request.url === '/send' && text.length === 100 && to.length > 8, at: Date.now() * 1000 });
    response.end('{}');
  });
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const provider = `http://127.0.0.1:${server.address().port}`;

function run(peer, command, options = {}) {
  const args = Object.entries(options).flatMap(([name, value]) => (value === true ? [`--${name}`] : [`--${name}`, String(value)]));
  const child = spawn(`${peers}/${peer}/run`, [command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const texts = ['', ''];
  child.stdout.on('data', (part) => (texts[0] += part));
  child.stderr.on('data', (part) => (texts[1] += part));
  return new Promise((resolve) => child.on('close', (code) => resolve({
    code,
    error: texts[1].trim(),
    lines: code === 0 ? texts[0].split('\n').filter(Boolean).map((line) => JSON.parse(line)) : [],
  })));
}

async function ran(peer, command, options) {
  const result = await run(peer, command, options);
  assert.equal(result.code, 0, `${peer} ${command}: ${result.error}`);
  return result.lines;
}

async function measured(peer, command, options) {
  const [figure, ...more] = await ran(peer, command, options);
  assert.deepEqual(more, [], `${peer} ${command} prints one line`);
  assert.ok(figure.messages > 0 && figure.seconds > 0, `${peer} ${command} prints ${JSON.stringify(figure)}`);
  return figure.messages;
}

async function refuses(peer, code, command, options) {
  const result = await run(peer, command, options);
  assert.equal(result.code, code, `${peer} ${command} ${JSON.stringify(options)}: ${result.error}`);
  assert.ok(result.error, `${peer} ${command} says why`);
}

// Each message reached the provider once, and no other did.
function arrived(peer, count, what) {
  assert.deepEqual([seen.length, new Set(seen.map(({ id }) => id)).size], [count, count], `${peer}: all of ${what} once`);
  assert.ok(seen.every(({ right }) => right), `${peer}: requests of the agreed form`);
  const requests = seen;
  seen = [];
  return requests;
}

async function check(peer) {
  const { code, error, lines: [version] } = await run(peer, 'versions');
  if (code === 3) return `not here: ${error}`;
  assert.equal(code, 0, error);
  assert.ok(version.peer === peer && version.version && version.settings, `${peer} versions: ${JSON.stringify(version)}`);
  const modem = peer === 'gammu-smsd';
  const messages = modem ? 40 : MESSAGES;

  await ran(peer, 'setup', { url });
  assert.equal(await measured(peer, 'fill', { url, messages: 30 }), 30);
  await ran(peer, 'setup', { url }); // what it made before is gone
  assert.equal(await measured(peer, 'fill', { url, messages }), messages);
  assert.equal(await measured(peer, 'drain', { url, messages, concurrency: 8, provider: 'none' }), messages);
  assert.equal(seen.length, 0, `${peer}: no provider, no request`);

  await ran(peer, 'setup', { url });
  const committed = await measured(peer, 'enqueue', { url, clients: 3, seconds: 0.5 });
  if (modem) {
    for (const command of ['drain', 'latency', 'http']) await refuses(peer, 3, command, { url, messages, concurrency: 1, rate: 1, provider });
  } else {
    assert.equal(await measured(peer, 'drain', { url, messages: committed, concurrency: 200, provider }), committed);
    arrived(peer, committed, 'what enqueue counted');
    await measured(peer, 'http', { messages, concurrency: 8, provider });
    arrived(peer, messages, 'what its client sent');
    await ran(peer, 'setup', { url });
    const before = Date.now() * 1000;
    const commits = await ran(peer, 'latency', { url, messages: 60, rate: 100, provider });
    assert.deepEqual(commits.map(({ id }) => id).sort((a, b) => a - b), Array.from({ length: 60 }, (_, id) => id), `${peer}: a line for each commit`);
    const after = Date.now() * 1000;
    const requests = arrived(peer, 60, 'what was committed');
    const times = [...commits.map(({ committed_at_us: at }) => at), ...requests.map(({ at }) => at)];
    assert.ok(times.every((at) => before <= at && at <= after), `${peer}: microseconds of the wall clock`);
  }

  const keyed = await run(peer, 'enqueue', { url, clients: 2, seconds: 0.3, keys: true });
  assert.ok(keyed.code === 0 ? keyed.lines[0].messages > 0 : keyed.code === 3 && keyed.error, `${peer} enqueue --keys: ${keyed.error}`);
  await refuses(peer, 2, 'nonsense');
  await refuses(peer, 2, 'fill', { url });
  await refuses(peer, 2, 'fill', { url, messages: 0 });
  await refuses(peer, 2, 'fill', { url, messages: 1, nonsense: 1 });
  await refuses(peer, 1, 'fill', { url: 'postgresql://postgres@127.0.0.1:1/nothing', messages: 1 });
  return `${version.version}, ${keyed.code === 0 ? 'with keys' : 'no keys'}`;
}

const all = readdirSync(peers).filter((name) => existsSync(`${peers}/${name}/run`));
const names = chosen.length > 0 ? chosen : all;
for (const name of names) process.stdout.write(`${name}: ${await check(name)}\n`);
process.exit(0);
