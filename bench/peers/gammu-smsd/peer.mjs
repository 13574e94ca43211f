// gammu-smsd: a daemon that drives one modem, here its own dummy phone, which writes each message into a file. So there is no
// HTTP request, and one message at a time: it stands for what sending through a modem costs the database.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { load, main, message, pieces, prepared, print, Refusal, since, until, withClient } from '../lib/peer.mjs';

const connection = load('pg-connection-string');

const FOLDER = process.env.PEER_FOLDER;
const SCHEMA = `${FOLDER}/usr/share/doc/gammu-smsd/examples/pgsql.sql`;
const DAEMON = `${FOLDER}/usr/bin/gammu-smsd`;
const env = { ...process.env, LD_LIBRARY_PATH: `${FOLDER}/usr/lib:${FOLDER}/usr/lib/x86_64-linux-gnu` };
const INSERT = 'INSERT INTO outbox ("DestinationNumber", "TextDecoded", "CreatorID", "Coding")';
const AT_MOST_SECONDS = 30;

const row = (id) => {
  const { to, text } = message(id);
  return [to, text, String(id), 'Default_No_Compression'];
};

function settings(url, folder) {
  const { host, port, user, password, database } = connection.parse(url);
  return `[gammu]
device = ${folder}/phone
connection = none
model = dummy
[smsd]
service = sql
driver = native_pgsql
host = ${host ?? '127.0.0.1'}:${port || 5432}
user = ${user ?? ''}
password = ${password ?? ''}
database = ${database}
logfile = ${folder}/log
loopsleep = 0
commtimeout = 1
statusfrequency = 0
checksecurity = 0
checkbattery = 0
checksignal = 0
checknetwork = 0
receive = no
deliveryreport = no
`;
}

async function withDaemon(url, use) {
  const folder = mkdtempSync(`${tmpdir()}/gammu-`);
  mkdirSync(`${folder}/phone`);
  writeFileSync(`${folder}/smsdrc`, settings(url, folder), { mode: 0o600 });
  // It ends with us, however we end.
  const daemon = spawn('setpriv', ['--pdeathsig', 'TERM', DAEMON, '-c', `${folder}/smsdrc`], { env, stdio: 'ignore' });
  const gone = new Promise((resolve) => daemon.on('exit', resolve));
  try {
    return await Promise.race([use(), gone.then(() => {
      throw new Error(`gammu-smsd ended: ${readFileSync(`${folder}/log`, 'utf8').trim().split('\n').pop()}`);
    })]);
  } finally {
    daemon.kill('SIGTERM');
    await gone;
    rmSync(folder, { recursive: true });
  }
}

const noHttp = async () => {
  throw new Refusal('gammu-smsd sends through a modem, not over HTTP');
};

await main({
  versions: () => ({
    peer: 'gammu-smsd',
    version: /version ([0-9.]+)/.exec(spawnSync(DAEMON, ['--version'], { env, encoding: 'utf8' }).stdout)?.[1],
    settings: 'LoopSleep 0, CommTimeout 1, no checks of the phone, nothing received, no reports; a dummy phone; INSERT of many, or prepared of one',
  }),

  setup: ({ url }) => withClient(url, async (client) => {
    await client.query('DROP TABLE IF EXISTS gammu, inbox, outbox, outbox_multipart, phones, sentitems');
    // plpgsql has been there since PostgreSQL 9.0.
    await client.query(readFileSync(SCHEMA, 'utf8').replace(/^CREATE LANGUAGE.*$/m, ''));
  }),

  fill: ({ url, messages }) => withClient(url, async (client) => {
    const started = performance.now();
    for (const piece of pieces(messages, 10_000)) {
      const rows = piece.map(({ id }) => row(id));
      const columns = [0, 1, 2, 3].map((column) => rows.map((values) => values[column]));
      await client.query(`${INSERT} SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])`, columns);
    }
    return started;
  }),

  async producer({ url, keys }) {
    if (keys) throw new Refusal('gammu-smsd has no keys: it takes every message');
    return prepared(url, 'insert', `${INSERT} VALUES ($1, $2, $3, $4)`, row);
  },

  own: {
    // It sends so slowly that it is given a time, and says how many it sent.
    async drain({ url, messages, provider }) {
      if (provider !== 'none') await noHttp();
      const sent = await withClient(url, (client) => withDaemon(url, async () => {
        await until(client, 'SELECT EXISTS (SELECT FROM phones)'); // it enters its phone, and begins
        const start = performance.now();
        let count = 0;
        while (count < messages && since(start) < AT_MOST_SECONDS) {
          await sleep(20);
          count = Number((await client.query('SELECT count(*) FROM sentitems')).rows[0].count);
        }
        return { messages: count, seconds: since(start) };
      }));
      print(sent);
    },
    latency: noHttp,
    http: noHttp,
  },
});
