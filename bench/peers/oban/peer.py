"""oban: rows updated to completed and kept; one producer fetches for all that run, and wakes by NOTIFY in each insert.

The commands are those of ../README.md, and the figures are taken as in ../lib/peer.mjs.
"""

import argparse
import asyncio
import importlib.metadata
import json
import random
import sys
import time

import aiohttp
import uvloop
from oban import Oban, telemetry, worker
from oban.schema import install, uninstall

SETTINGS = (
    "uvloop; limit = concurrency (500 without requests), debounce_interval and pool of 10 as they are; enqueue_many for many"
)


class Refusal(Exception):
    """The peer has no such thing: exit code 3 and the reason."""


class Work:
    """What the jobs of this process do; oban makes a worker of its own for each."""

    send = None
    ended = None


@worker(queue="sms", max_attempts=20)
class Send:
    async def process(self, job):
        await Work.send(job.args)
        Work.ended()


def message(number):
    """The same message as in ../lib/peer.mjs."""
    text = f"Order {number} is on its way and arrives between 10 and 12. Reply STOP to hear no more of it. "
    return {
        "id": number,
        "to": f"+9665{number:08d}",
        "text": text.ljust(100, "."),
        "meta": {"order": number, "kind": "delivery"},
    }


def show(value):
    print(json.dumps(value), flush=True)


class Provider:
    def __init__(self, url, concurrency):
        self.url = None if url == "none" else url.rstrip("/") + "/send"
        self.concurrency = concurrency

    async def __aenter__(self):
        if self.url:
            connector = aiohttp.TCPConnector(limit=self.concurrency)
            self.session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_):
        if self.url:
            await self.session.close()

    async def send(self, payload):
        if not self.url:
            return
        async with self.session.post(self.url, json=payload) as answer:
            await answer.read()
            answer.raise_for_status()


class Counter:
    """Counts what ended; `wait` fails when nothing ends for a minute."""

    def __init__(self, goal):
        self.goal = goal
        self.ended = 0
        self.all = asyncio.Event()

    def one(self):
        self.ended += 1
        if self.ended == self.goal:
            self.all.set()

    async def wait(self):
        while not self.all.is_set():
            seen = self.ended
            try:
                await asyncio.wait_for(self.all.wait(), timeout=60)
            except TimeoutError:
                if self.ended == seen:
                    raise RuntimeError(f"nothing ended for a minute: {seen} of {self.goal} have") from None


async def versions(_):
    show({"peer": "oban", "version": importlib.metadata.version("oban"), "settings": SETTINGS})


async def setup(options):
    async with await Oban.create_pool(options.url) as pool:
        async with pool.connection() as connection:
            found = await connection.execute("SELECT to_regclass('oban_jobs') IS NOT NULL")
            there = (await found.fetchone())[0]
        if there:
            await uninstall(pool)
        await install(pool)


async def fill(options):
    async with await Oban.create_pool(options.url) as pool:
        oban = Oban(pool=pool)
        start = time.perf_counter()
        for first in range(0, options.messages, 10_000):
            last = min(first + 10_000, options.messages)
            await oban.enqueue_many(Send.new(message(number)) for number in range(first, last))
        show({"messages": options.messages, "seconds": time.perf_counter() - start})


async def enqueue(options):
    if options.keys:
        raise Refusal("oban for Python has no unique jobs: they belong to Oban Pro")
    async with await Oban.create_pool(options.url, min_size=options.clients, max_size=options.clients) as pool:
        oban = Oban(pool=pool)
        first = random.randrange(9_000_000)
        count = 0
        start = time.perf_counter()

        async def client():
            nonlocal count
            while time.perf_counter() - start < options.seconds:
                count += 1
                await oban.enqueue(Send.new(message(first + count)))

        await asyncio.gather(*(client() for _ in range(options.clients)))
        show({"messages": count, "seconds": time.perf_counter() - start})


async def drain(options):
    # A job that sends nothing is never in flight: the limit is then only how many are fetched at once.
    limit = options.concurrency if options.provider != "none" else max(500, options.concurrency)
    async with (
        await Oban.create_pool(options.url) as pool,
        Provider(options.provider, options.concurrency) as provider,
    ):
        counter = Counter(options.messages)
        Work.send, Work.ended = provider.send, counter.one
        fetches = []
        telemetry.attach("first-fetch", ["oban.producer.get.start"], lambda *_: fetches.append(time.perf_counter()))
        async with Oban(pool=pool, queues={"sms": limit}):
            await counter.wait()
            async with pool.connection() as connection:
                open_jobs = "SELECT EXISTS (SELECT FROM oban_jobs WHERE state IN ('available', 'executing', 'retryable'))"
                while (await (await connection.execute(open_jobs)).fetchone())[0]:
                    await asyncio.sleep(0.002)
            show({"messages": options.messages, "seconds": time.perf_counter() - fetches[0]})


async def latency(options):
    async with await Oban.create_pool(options.url) as pool, Provider(options.provider, 64) as provider:
        counter = Counter(options.messages)
        Work.send, Work.ended = provider.send, counter.one
        async with Oban(pool=pool, queues={"sms": 64}):
            await asyncio.sleep(1)
            # A process of its own, so that a busy worker does not hold up its clock.
            child = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "produce",
                "--url", options.url, "--messages", str(options.messages), "--rate", str(options.rate),
            )  # fmt: skip
            if await child.wait() != 0:
                raise RuntimeError("the producer failed")
            await counter.wait()


async def produce(options):
    async with await Oban.create_pool(options.url, min_size=16, max_size=16) as pool:
        oban = Oban(pool=pool)
        commits = []

        async def one(number):
            await oban.enqueue(Send.new(message(number)))
            commits.append({"id": number, "committed_at_us": time.time_ns() // 1000})

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(options.messages):
                await asyncio.sleep(start + number / options.rate - time.perf_counter())
                group.create_task(one(number))
        for commit in commits:
            show(commit)


async def http(options):
    async with Provider(options.provider, options.concurrency) as provider:
        numbers = iter(range(options.messages))
        start = time.perf_counter()

        async def client():
            for number in numbers:
                await provider.send(message(number))

        await asyncio.gather(*(client() for _ in range(options.concurrency)))
        show({"messages": options.messages, "seconds": time.perf_counter() - start})


def positive(kind):
    def parse(text):
        number = kind(text)
        if not number > 0:
            raise ValueError
        return number

    parse.__name__ = f"positive {kind.__name__}"
    return parse


KINDS = {"messages": int, "clients": int, "concurrency": int, "seconds": float, "rate": float}
COMMANDS = {
    versions: [],
    setup: ["url"],
    fill: ["url", "messages"],
    enqueue: ["url", "clients", "seconds"],
    drain: ["url", "messages", "concurrency", "provider"],
    latency: ["url", "messages", "rate", "provider"],
    produce: ["url", "messages", "rate"],
    http: ["messages", "concurrency", "provider"],
}


def main():
    parser = argparse.ArgumentParser(prog="run", allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    for function, names in COMMANDS.items():
        command = commands.add_parser(function.__name__, allow_abbrev=False)
        command.set_defaults(function=function)
        for name in names:
            command.add_argument(f"--{name}", required=True, type=positive(KINDS[name]) if name in KINDS else str)
        if function is enqueue:
            command.add_argument("--keys", action="store_true")
    options = parser.parse_args()
    try:
        uvloop.run(options.function(options))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
