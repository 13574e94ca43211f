// pgmq: SQL functions over a table; a message is hidden while it is read, and deleted when done. It has no worker, so the loop here
// is written by hand.
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, main, message, pieces, prepared, Refusal, withClient } from '../lib/peer.mjs';

const SQL = `${process.env.PEER_FOLDER}/pgmq/sql`;
const QUEUE = 'sms';
const WAKING = 'sms_waking';
const AHEAD = 500;
const HIDDEN_SECONDS = 60;

// Reads ahead on one connection, keeps up to `concurrency` sends in flight, and deletes what was sent on another.
async function loop(url, queue, concurrency, send, ended) {
  const [reader, deleter] = await Promise.all([connect(url), connect(url)]);
  const waiting = [];
  const sent = [];
  let inFlight = 0;
  let deleting = false;
  let reading = true;
  let news = 0;
  let rouse = () => {};

  async function remove() {
    if (deleting) return;
    deleting = true;
    while (sent.length > 0) {
      const ids = sent.splice(0);
      await deleter.query({ name: 'delete', text: 'SELECT pgmq.delete($1, $2::bigint[])', values: [queue, ids] });
      ids.forEach(ended);
    }
    deleting = false;
  }
  async function sendNext() {
    inFlight += 1;
    while (waiting.length > 0) {
      const row = waiting.shift();
      if (waiting.length < AHEAD / 2) rouse();
      await send(row.message);
      sent.push(row.msg_id);
      remove();
    }
    inFlight -= 1;
  }
  async function read() {
    while (reading) {
      const known = news;
      const { rows } = await reader.query({ name: 'read', text: 'SELECT msg_id, message FROM pgmq.read($1, $2, $3)', values: [queue, HIDDEN_SECONDS, AHEAD] });
      waiting.push(...rows);
      while (inFlight < concurrency && waiting.length > 0) sendNext();
      const idle = rows.length === 0 && news === known;
      while (reading && (idle || waiting.length >= AHEAD / 2)) {
        const roused = new Promise((resolve) => (rouse = () => resolve(true)));
        if ((await Promise.race([roused, sleep(100)])) || idle) break;
      }
    }
  }

  const started = performance.now();
  const end = read();
  return {
    started,
    wake() {
      news += 1;
      rouse();
    },
    async stop() {
      reading = false;
      rouse();
      await end;
      await Promise.all([reader.end(), deleter.end()]);
    },
  };
}

await main({
  versions: () => ({
    peer: 'pgmq',
    version: readFileSync(`${SQL}/VERSION`, 'utf8').trim(),
    settings: 'send_batch for many, send prepared for one; a hand-written loop: read of 500 ahead, delete by array; enable_notify_insert(0) for latency alone',
  }),

  setup: ({ url }) => withClient(url, async (client) => {
    await client.query('DROP SCHEMA IF EXISTS pgmq CASCADE');
    await client.query(readFileSync(`${SQL}/pgmq.sql`, 'utf8'));
    await client.query('SELECT pgmq.create($1)', [QUEUE]);
    await client.query('SELECT pgmq.create($1)', [WAKING]);
    await client.query('SELECT pgmq.enable_notify_insert($1, 0)', [WAKING]);
  }),

  fill: ({ url, messages }) => withClient(url, async (client) => {
    const started = performance.now();
    for (const piece of pieces(messages, 10_000)) {
      await client.query('SELECT count(*) FROM pgmq.send_batch($1, $2::jsonb[])', [QUEUE, piece.map((payload) => JSON.stringify(payload))]);
    }
    return started;
  }),

  async producer({ url, keys, wake }) {
    if (keys) throw new Refusal('pgmq has no keys: it takes every message');
    return prepared(url, 'send', 'SELECT pgmq.send($1, $2::jsonb)', (id) => [wake ? WAKING : QUEUE, JSON.stringify(message(id))]);
  },

  async worker({ url, concurrency, wake }, send, ended) {
    const worker = await loop(url, wake ? WAKING : QUEUE, concurrency, send, ended);
    if (!wake) return worker;
    const listener = await connect(url);
    listener.on('notification', worker.wake);
    await listener.query(`LISTEN "pgmq.q_${WAKING}.INSERT"`);
    return {
      started: worker.started,
      async stop() {
        await listener.end();
        await worker.stop();
      },
    };
  },

  // The last delete had returned when the last message was counted.
  settled: async () => {},
});
