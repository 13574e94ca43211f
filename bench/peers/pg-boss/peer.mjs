// pg-boss: rows updated to completed and kept; workers fetch batches. Two queues: one that wakes its workers and one that does not,
// since NOTIFY in each commit is what its documentation lets one leave out.
import { performance } from 'node:perf_hooks';
import { installedVersion, load, main, message, pieces, until, withClient } from '../lib/peer.mjs';

const { PgBoss } = load('pg-boss');

const QUEUE = 'sms';
const WAKING = 'sms_waking';
const KEYED = 'sms_keyed';

// Supervision and schedules are for days of running, and would only disturb seconds of it.
async function start(url, options = {}) {
  const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, ...options });
  boss.on('error', (error) => process.stderr.write(`pg-boss: ${error.message}\n`));
  await boss.start();
  return boss;
}

async function withBoss(url, use) {
  const boss = await start(url);
  try {
    return await use(boss);
  } finally {
    await boss.stop({ graceful: false });
  }
}

await main({
  versions: () => ({
    peer: 'pg-boss',
    version: installedVersion('pg-boss'),
    settings: 'insert for many; work with localConcurrency 2 and batchSize = concurrency / 2 (500 without requests), burstWhenBatchFull; useListenNotify and notify for latency alone',
  }),

  async setup({ url }) {
    await withClient(url, (client) => client.query('DROP SCHEMA IF EXISTS pgboss CASCADE'));
    await withBoss(url, async (boss) => {
      await boss.createQueue(QUEUE, { partition: true });
      await boss.createQueue(WAKING, { partition: true, notify: true });
      await boss.createQueue(KEYED, { partition: true, policy: 'exclusive' });
    });
  },

  fill: ({ url, messages }) => withBoss(url, async (boss) => {
    const started = performance.now();
    for (const piece of pieces(messages, 10_000)) await boss.insert(QUEUE, piece.map((data) => ({ data })));
    return started;
  }),

  // An instance with one connection is a client.
  async producer({ url, keys, wake }) {
    const boss = await start(url, { max: 1, migrate: false });
    const queue = wake ? WAKING : keys ? KEYED : QUEUE;
    return {
      async one(id) {
        const created = await boss.send(queue, message(id), keys ? { singletonKey: `order-${id}` } : {});
        if (!created) throw new Error('pg-boss took a new key for a known one');
      },
      end: () => boss.stop({ graceful: false }),
    };
  },

  async worker({ url, concurrency, provider, wake }, send, ended) {
    const boss = await start(url, { useListenNotify: wake });
    const localConcurrency = Math.min(2, concurrency);
    const started = performance.now();
    // A batch is sent at once, so it is a share of what may be in flight; without requests nothing is.
    const batchSize = provider === 'none' ? 500 : Math.ceil(concurrency / localConcurrency);
    const options = { localConcurrency, batchSize, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    await boss.work(wake ? WAKING : QUEUE, options, async (jobs) => {
      await Promise.all(jobs.map((job) => send(job.data)));
      jobs.forEach(ended);
    });
    return { started, stop: () => boss.stop({ graceful: false }) };
  },

  // A job's end is its state.
  settled: (client) => until(client, "SELECT NOT EXISTS (SELECT FROM pgboss.job WHERE name = 'sms' AND state < 'completed')"),
});
