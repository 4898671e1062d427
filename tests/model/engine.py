"""Runs real code one Redis command at a time, against a real server, from any state of the world.

An actor is a plain function of the code under test. It is never kept running: its state is the list of the answers
that it has had so far. To take one step, the function is called from its beginning, is given these answers again, does
its next command for real, and is unwound by :class:`Suspend` where it wants to send the one after that. So a state of
the world is a value: the keys of the server, and what each actor has been told. It can be kept, compared, hashed and
gone back to, without threads and without a copy of a process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import redis
from redis.client import Pipeline

EPOCH = 1_800_000_000
"""The server's time at which every world begins."""
TTL_STEP = 5
"""Seconds: real time passes while a world is explored, so times to live are rounded up to multiples of it."""
CLOCK_KEY = "model:clock"

VIEW = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if key ~= 'model:clock' then
    local kind, content = redis.call('TYPE', key).ok, nil
    if kind == 'string' then content = redis.call('GET', key)
    elseif kind == 'list' then content = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'hash' then content = redis.call('HGETALL', key)
    elseif kind == 'set' then content = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    else content = redis.call('XLEN', key) end
    found[#found + 1] = {key, kind, content, redis.call('PTTL', key), redis.call('DUMP', key)}
  end
end
return found
"""
RESTORE = """
redis.call('FLUSHALL')
redis.call('SET', 'model:clock', ARGV[1])
for i = 2, #ARGV, 3 do
  redis.call('RESTORE', ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
"""


class Suspend(BaseException):
    """The actor has come to its next command: its call is unwound."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the server.

    Args:
        kind: its type.
        content: str, tuple of str (list), frozenset of str (set), dict (hash, sorted set), int (length of a stream).
        ttl: seconds to live, rounded up to a multiple of ``TTL_STEP``; None if it does not expire.
    """

    kind: str
    content: Any
    ttl: int | None


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of the server, readable, and as the server dumps them."""

    view: Mapping[str, Key]
    dumps: tuple[tuple[bytes, int, bytes], ...]
    digest: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a script.

    Args:
        text: the script.
        keys: as it was called.
        args: as it was called.
        state: what was in Redis before it.
        clock: when that was.
    """

    text: str
    keys: list[Any]
    args: list[Any]
    state: Keys
    clock: int

    @property
    def digest(self) -> bytes:
        return self.state.digest + repr((self.keys, self.args, self.clock)).encode()


class Server:
    """The keys of one real server, taken and put back as a whole."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._view = client.register_script(VIEW)
        self._restore = client.register_script(RESTORE)

    def take(self) -> Keys:
        view: dict[str, Key] = {}
        dumps = []
        for name, kind, content, ttl, dump in self._view():
            seconds = None if ttl < 0 else -(-ttl // (1000 * TTL_STEP)) * TTL_STEP
            view[_text(name)] = Key(_text(kind), _readable(_text(kind), content), seconds)
            dumps.append((name, 0 if seconds is None else seconds * 1000, dump))
        hashed = hashlib.blake2b(digest_size=12)
        for name in sorted(view):
            key = view[name]
            hashed.update(repr((name, key.kind, _sorted(key.content), key.ttl)).encode())
        return Keys(view, tuple(dumps), hashed.digest())

    def put(self, keys: Keys, clock: int) -> None:
        self._restore(args=[clock, *(part for dump in keys.dumps for part in dump)])

    def pass_time(self, seconds: int, clock: int) -> None:
        """Let keys expire as if so many seconds had gone by."""
        self.client.set(CLOCK_KEY, clock)
        for name in self.client.scan_iter(count=1000):
            left = self.client.pttl(name)
            if left >= 0:
                # PEXPIRE of a time that is over removes the key.
                self.client.pexpire(name, -(-left // (1000 * TTL_STEP)) * TTL_STEP * 1000 - seconds * 1000)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _readable(kind: str, content: Any) -> Any:
    if kind == "string":
        return _text(content)
    if kind == "list":
        return tuple(_text(each) for each in content)
    if kind == "set":
        return frozenset(_text(each) for each in content)
    if kind in ("hash", "zset"):
        texts = [_text(each) for each in content]
        return dict(zip(texts[::2], texts[1::2], strict=True))
    return int(content)


def _sorted(content: Any) -> Any:
    if isinstance(content, dict):
        return sorted(content.items())
    return sorted(content) if isinstance(content, frozenset) else content


@dataclass(frozen=True, slots=True)
class Request:
    """What an actor wants to do next: something that others can see, or may be in the way of.

    Args:
        what: for the trace.
        do: does it, in the way that the explorer chose (``how``).
        ways: the ways in which it can go well, in this world; none while it has to wait.
        remote: whether it goes over the network, so that it can get lost.
    """

    what: str
    do: Callable[[str], Any]
    ways: Callable[[World], tuple[str, ...]] = lambda world: ("goes on",)
    remote: bool = True


@dataclass(frozen=True, slots=True)
class Actor:
    """One actor in one state.

    Args:
        name: its name.
        pid: its process; several actors may be threads of one.
        function: what it does.
        arguments: of the function.
        born: the clock at its start.
        log: the answers that it has had: what was asked, whether it was an error, the answer, the clock.
        request: what it wants to do next; None before its first step, and when it is done.
        done: its function has returned.
        digest: of its log.
    """

    name: str
    pid: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    born: int
    log: tuple[tuple[str, bool, Any, int], ...] = ()
    request: Request | None = None
    done: bool = False
    digest: bytes = b""


@dataclass
class World:
    """A state of the world, without the keys of the server. Every value in it is immutable.

    Args:
        clock: seconds, the same for server and processes.
        machines: of each process that lives, its machine.
        actors: by name.
        facts: what is so and not in Redis: shared memory, signals, the archive, and what really became of each job.
        budget: how many faults of each kind may still happen.
    """

    clock: int = EPOCH
    machines: dict[int, str] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)
    facts: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    budget: dict[str, int] = field(default_factory=dict)

    def copy(self) -> World:
        return World(self.clock, dict(self.machines), dict(self.actors), dict(self.facts), dict(self.budget))

    def alive(self, pid: int) -> bool:
        return pid in self.machines

    def find(self, kind: str) -> dict[Any, Any]:
        """Facts of one kind, by what stands behind the kind."""
        return {key[1:] if len(key) > 2 else key[1]: value for key, value in self.facts.items() if key[0] == kind}

    def digest(self) -> bytes:
        actors = sorted((each.name, each.done, each.digest) for each in self.actors.values() if self.alive(each.pid))
        facts = sorted((repr(key), repr(value)) for key, value in self.facts.items())
        parts = (self.clock, sorted(self.machines.items()), actors, facts, sorted(self.budget.items()))
        return hashlib.blake2b(repr(parts).encode(), digest_size=12).digest()


class Runtime:
    """Where the code under test meets the explorer. One for a process; :data:`current` is it.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rewrites: dict[str, str] = {}
        """Lua scripts, and the mutants in their place."""
        self._scripts: dict[str, Any] = {}
        self.calls: list[Call] | None = None
        """Where wanted: each call of a script."""
        self.world = World()
        self._actor: Actor | None = None
        self._log: list[tuple[str, bool, Any, int]] = []
        self._read = 0
        self._how: str | None = None
        self._live = True
        self._suspended = False
        self._request: Request | None = None
        self._born = EPOCH
        self._ids = 0
        self.wanted_ways: dict[str, str] = {}
        """Where nobody explores: the way that a request goes, by the first word of what it is."""

    # For the explorer.

    def step(self, name: str, how: str | None) -> None:
        """Let an actor of :attr:`world` do what it wants to do, and come to its next request.

        Args:
            name: the actor.
            how: one of the ways of its request, or of the network's; None takes it to its first request.
        """
        actor = self.world.actors[name]
        before = (self._actor, self._log, self._read, self._how, self._live, self._suspended, self._request)
        before += (self._born, self._ids)
        self._actor, self._log, self._read, self._how = actor, list(actor.log), 0, how
        self._live, self._suspended, self._request = how is None, False, None
        self._born, self._ids = actor.born, 0
        done = False
        try:
            actor.function(*actor.arguments)
            done = not self._suspended
        except Suspend:
            pass
        finally:
            log, request = tuple(self._log), self._request
            (self._actor, self._log, self._read, self._how, self._live, self._suspended, self._request) = before[:7]
            self._born, self._ids = before[7:]
        hashed = hashlib.blake2b(actor.digest, digest_size=12)
        hashed.update(repr([(each[0], each[1], _plain(each[2]), each[3]) for each in log[len(actor.log) :]]).encode())
        self.world.actors[name] = replace(
            self.world.actors[name], log=log, request=request, done=done, digest=hashed.digest()
        )

    def straight(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the code under test without a stop."""
        return function(*arguments)

    # For the actors.

    @property
    def exploring(self) -> bool:
        return self._actor is not None

    @property
    def now(self) -> int:
        if self._actor is None or self._live:
            return self.world.clock
        return self._log[self._read - 1][3] if self._read else self._born

    def utc_now(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def new_id(self) -> str:
        """An id that is the same whenever the actor is run again."""
        self._ids += 1
        if self._actor is None:
            count = self.world.facts[("ids",)] = self.world.facts.get(("ids",), 0) + 1
            return f"id{count}"
        return f"{self._actor.name}.{self._ids}"

    def effect(self, do: Callable[[World], Any]) -> None:
        """Change what is so in the world, once."""
        if not self._suspended and self._live:
            do(self.world)

    def observe(self, what: str, look: Callable[[World], Any]) -> Any:
        """Look at what is so in the world: the same is seen whenever the actor is run again."""
        if self._actor is None:
            return look(self.world)
        if self._suspended:
            raise Suspend
        if self._read < len(self._log):
            return self._again(what)
        assert self._live, f"{self._actor.name} looks at {what}, which it did not before"
        value = look(self.world)
        self._log.append((what, True, value, self.world.clock))
        self._read += 1
        return value

    def request(self, request: Request, *, private: bool = False) -> Any:
        """Do what others can see.

        Args:
            request: what.
            private: nobody else looks at it, so the order is of no importance.
        """
        if self._actor is None:
            return request.do(self.wanted_ways.get(request.what.split()[0], "goes on"))
        if self._suspended:
            raise Suspend
        if self._read < len(self._log):
            return self._again(request.what)
        if private and self._live:
            how = "goes on"
        elif self._how is None:
            self._suspended, self._request = True, request
            raise Suspend
        else:
            how, self._how = self._how, None
        self._live = True
        try:
            entry = (request.what, True, request.do(how), self.world.clock)
        except redis.exceptions.RedisError as error:
            entry = (request.what, False, error, self.world.clock)
        self._log.append(entry)
        self._read += 1
        if not entry[1]:
            raise entry[2]
        return entry[2]

    def _again(self, what: str) -> Any:
        then, well, value, _ = self._log[self._read]
        assert then == what, f"not the same when run again: {what!r} now, {then!r} before"
        self._read += 1
        if not well:
            raise value
        return value

    # Redis.

    def send(self, what: str, command: Callable[[], Any], private: bool) -> Any:
        """Send a command, a transaction or a script to the server."""

        def do(how: str) -> Any:
            if how == "is not sent":
                raise redis.exceptions.ConnectionError("not sent")
            if how == "is sent twice":
                command()
            reply = command()
            if how == "its reply is lost":
                raise redis.exceptions.ConnectionError("the reply was lost")
            return reply

        return self.request(Request(what, do), private=private)

    def script(self, text: str) -> Any:
        """The real script, but for its mutation and for the clock."""
        text = self.rewrites.get(text, text)
        if text not in self._scripts:
            told = text.replace("redis.call('TIME')", f"({{redis.call('GET', '{CLOCK_KEY}'), '0'}})")
            self._scripts[text] = self.server.client.register_script(told)
        return self._scripts[text]

    def is_private(self, keys: Iterable[Any]) -> bool:
        prefix = f"rq:worker:{self.owner}"
        return all(_text(key).startswith(prefix) for key in keys)

    @property
    def owner(self) -> str:
        """Name of the actor that is at work; of a horse, its worker's."""
        return self._actor.name.partition("/")[0] if self._actor else "recovery"


def _plain(value: Any) -> Any:
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else value


NETWORK = ("its reply is lost", "is not sent", "is sent twice")
current: Any = None
"""The runtime in use; ``explorer.laboratory`` makes one."""
LOCAL_COMMANDS = {
    "CLIENT SETNAME": True,
    "CLIENT INFO": {"addr": "model"},
    "CLIENT LIST": [],
    "PUBLISH": 0,
    "SCRIPT LOAD": "sha",
}


class ModelRedis(redis.Redis):
    """A client whose every command is a request to the explorer."""

    def __init__(self, **options: Any) -> None:
        # RQ's scheduler makes a client of its own, of the same class.
        super().__init__(connection_pool=current.server.client.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        name = str(args[0]).upper()
        if name in LOCAL_COMMANDS:
            return LOCAL_COMMANDS[name]
        if name == "TIME":
            return (current.now, 0)
        if name == "EVAL":
            count = int(args[2])
            return self.register_script(args[1])(keys=args[3 : 3 + count], args=args[3 + count :])
        real = current.server.client
        what = " ".join(_text(each)[:60] for each in args[:3])
        private = current.is_private(args[1:2]) if len(args) > 1 else False
        private |= what.startswith("HSET graceful:journal ") and bool(options.pop("posted", False))
        return current.send(what, lambda: real.execute_command(*args, **options), private)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        return ModelPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def register_script(self, script: Any) -> Any:
        return ModelScript(script)


class ModelScript:
    """As redis-py's; the server always knows it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, keys: Any = (), args: Any = (), client: Any = None) -> Any:
        real = current.script(self.text)
        keys, args = list(keys), list(args)
        first = next((line for line in self.text.splitlines() if line.startswith("-- KEYS")), "")
        what = f"script {script_name(self.text)} {_text(args[0]) if args else first}"

        def run() -> Any:
            if current.calls is not None:
                current.calls.append(Call(self.text, keys, args, current.server.take(), current.world.clock))
            return real(keys=keys, args=args)

        return current.send(what, run, False)


SCRIPT_NAMES: dict[str, str] = {}


def script_name(text: str) -> str:
    return SCRIPT_NAMES.get(text, "?")


class ModelPipeline(Pipeline):  # type: ignore[type-arg]
    """One request for a whole transaction; what is watched is compared, since the keys are put back between steps."""

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        name = str(args[0]).upper()
        real = current.server.client
        if name == "WATCH":
            self.watching = True
            self._seen = {**getattr(self, "_seen", {}), **{key: self._look(key) for key in args[1:]}}
            return True
        if name == "UNWATCH":
            self.watching = False
            return True
        what = " ".join(_text(each)[:60] for each in args[:3])
        return current.send(what, lambda: real.execute_command(*args, **options), current.is_private(args[1:2]))

    def _look(self, key: Any) -> bytes:
        real = current.server.client
        return bytes(current.observe(f"WATCH {_text(key)}", lambda world: real.dump(key) or b""))

    def reset(self) -> None:
        self._seen: dict[Any, bytes] = {}
        super().reset()

    def execute(self, raise_on_error: bool = True) -> Any:
        commands, seen = list(self.command_stack), dict(getattr(self, "_seen", {}))
        watching = self.watching
        if not commands and not watching:
            return []
        self.watching = False
        self.reset()
        if not commands:
            return []
        real = current.server.client

        def do() -> Any:
            for key, before in seen.items():
                if (real.dump(key) or b"") != before:
                    raise redis.exceptions.WatchError("Watched variable changed.")
            with real.pipeline(transaction=True) as pipeline:
                for command in commands:
                    args, options = command if isinstance(command, tuple) else (command.args, command.options)
                    pipeline.execute_command(*args, **options)
                return pipeline.execute(raise_on_error)

        arguments = [each[0] if isinstance(each, tuple) else each.args for each in commands]
        what = "transaction " + ", ".join(" ".join(_text(part)[:50] for part in each[:2]) for each in arguments)
        private = current.is_private(each[1] for each in arguments if len(each) > 1)
        return current.send(what, do, private)
