// graphile-worker: jobs in one table, deleted when done; fetched in batches into a local queue.
import { EventEmitter } from 'node:events';
import { performance } from 'node:perf_hooks';
import { installedVersion, load, main, message, pieces, prepared, until, withClient } from '../lib/peer.mjs';

const { Logger, makeWorkerUtils, run } = load('graphile-worker');

// Its log of every job, to nowhere.
const logger = new Logger(() => () => {});
const ADD = "SELECT graphile_worker.add_job('send', $1::json)";
const ADD_KEYED = "SELECT graphile_worker.add_job('send', $1::json, job_key := $2)";

async function withUtils(url, use) {
  const utils = await makeWorkerUtils({ connectionString: url, logger });
  try {
    return await use(utils);
  } finally {
    await utils.release();
  }
}

await main({
  versions: () => ({
    peer: 'graphile-worker',
    version: installedVersion('graphile-worker'),
    settings: 'localQueue 500, completeJobBatchDelay 0, failJobBatchDelay 0, maxPoolSize 25; add_jobs for many, add_job prepared for one',
  }),

  async setup({ url }) {
    await withClient(url, (client) => client.query('DROP SCHEMA IF EXISTS graphile_worker CASCADE'));
    await withUtils(url, (utils) => utils.migrate());
  },

  fill: ({ url, messages }) => withUtils(url, async (utils) => {
    await utils.migrate();
    const start = performance.now();
    for (const piece of pieces(messages, 10_000)) {
      await utils.addJobs(piece.map((payload) => ({ identifier: 'send', payload })));
    }
    return start;
  }),

  producer: ({ url, keys }) => (keys
    ? prepared(url, 'add', ADD_KEYED, (id) => [JSON.stringify(message(id)), `order-${id}`])
    : prepared(url, 'add', ADD, (id) => [JSON.stringify(message(id))])),

  async worker({ url, concurrency }, send, ended) {
    const events = new EventEmitter();
    let started;
    events.once('localQueue:init', () => (started = performance.now())); // it fetches at once
    const runner = await run({
      logger,
      events,
      noHandleSignals: true,
      crontab: '',
      taskList: {
        send: async (payload) => {
          await send(payload);
          ended();
        },
      },
      preset: {
        worker: {
          connectionString: url,
          concurrentJobs: concurrency,
          maxPoolSize: 25,
          localQueue: { size: Math.max(500, concurrency + 1) },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
        },
      },
    });
    return { started, stop: () => runner.stop() };
  },

  // A job's end is its deletion.
  settled: (client) => until(client, 'SELECT NOT EXISTS (SELECT FROM graphile_worker._private_jobs)'),
});
