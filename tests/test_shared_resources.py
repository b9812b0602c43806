"""docs/evidence/shared-resources.md has a row, with a test, for each shared resource, and no others exist."""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "notifier"
PAGE = ROOT / "docs/evidence/shared-resources.md"
MAKERS = ("model/shared_resources.py", "model/own_thread.py")
BOUND_MAKERS = {"shared_bound", "shared_slots", "shared_cache", "shared_ring"}  # the size is the first argument
RESULT_MAKERS = {"shared_future", "shared_task"}
LOCK_MAKERS = {"shared_lock", "shared_event", "shared_thread_lock", "shared_reentrant_lock"} | RESULT_MAKERS
THREAD_MAKERS = {"start_thread": 0, "shared_timer": 0, "run_in_thread": 1}  # by the position of the name
FORBIDDEN = {
    "Lock", "RLock", "Condition", "Barrier", "Semaphore", "BoundedSemaphore", "ThreadPoolExecutor",
    "ProcessPoolExecutor", "Thread", "Timer", "to_thread", "run_in_executor", "set_default_executor", "lru_cache",
    "maxlen", "LifoQueue", "PriorityQueue",
}  # fmt: skip
PREFETCHES = {  # the only calls of `basic_qos`, and the bound of each
    "queues/rabbitmq/consuming.py": ("model/defaults.py", "PREFETCH"),
    "queues/rabbitmq/queue_pass.py": ("queues/rabbitmq/queue_pass.py", "MAX_WHOLE_RUN_LENGTH"),
}
OF_ONE_TASK = {  # modules whose events and futures one task waits for, or for a bounded time
    "configuration/clients/registry_refresh.py": 3, "configuration/signer_watch.py": 2,
    "configuration/signing_keys.py": 1, "delivery/pipeline.py": 1, "features/feed/feed.py": 1,
    "features/signers/pkcs11_session.py": 2, "features/spool/spool.py": 1, "features/spool/spool_files.py": 1,
    "features/upstreams/upstream_token.py": 1, "messages/worker.py": 2, "network/listeners/listener.py": 1,
    "model/own_thread.py": 1, "operators/deliveries/jobs.py": 2, "operators/status/worker_presence.py": 3,
    "operators/status/pause_watch.py": 1,
    "operators/terminal/queue_access.py": 1, "publishing/notice_wait.py": 1, "queues/rabbitmq/acks.py": 2,
    "queues/rabbitmq/broker_trials.py": 1, "queues/rabbitmq/buckets.py": 2, "queues/rabbitmq/consuming.py": 2,
    "queues/rabbitmq/event_queue.py": 1, "queues/rabbitmq/feed_target.py": 1, "queues/rabbitmq/link.py": 2,
    "queues/rabbitmq/publishing.py": 1, "queues/rabbitmq/queue.py": 1, "queues/rabbitmq/queue_pass.py": 1,
    "queues/rabbitmq/replies.py": 2, "queues/rabbitmq/side_channel.py": 1, "queues/rabbitmq/source_bindings.py": 1,
    "queues/rabbitmq/topology_watch.py": 1, "queues/rabbitmq/wire/aiormq_hooks.py": 2,
    "queues/rabbitmq/wire/publish.py": 3, "queues/sqlite/queue.py": 4, "service/deferral_release.py": 1,
    "service/peer_reports.py": 1, "service/run_command.py": 1, "service/watches.py": 2, "telemetry/log_stream.py": 2,
}  # fmt: skip
SHIELDED_OF_ONE = {  # the holder of the spool's lock waits for it; the checks of one run of the doctor
    "features/spool/spool_files.py", "service/doctor_checks.py",
}  # fmt: skip
OF_ONE = {  # limits of one connection, document, search or commit, which nobody else waits for
    "MAX_HEAD_BYTES", "LARGE_BYTES", "_NUMBER_CUT", "_MAX_SHOWN_NAMES", "HEAD", "MAX_CACHED_TEXTS",
}  # fmt: skip
NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.py)?::(?P<test>test_\w+)`")
UNTESTED = "none: "


class Key(NamedTuple):
    """Where a resource is made: the module, and the name to which it is assigned, or that of the thread."""

    module: str
    name: str


@cache
def trees() -> Mapping[str, ast.Module]:
    """Return all modules except the demo's, whose sample clients are not part of the service."""
    paths = (path for path in HOUSE.rglob("*.py") if "demo" not in path.parts)
    return {str(path.relative_to(HOUSE)): ast.parse(path.read_text()) for path in paths}


def find_resources(module: str, tree: ast.AST) -> Iterator[tuple[Key, str, ast.expr | None]]:
    """Yield each resource that the module makes, with the class around it, and the expression of its size."""

    def walk(node: ast.AST, owner: str, name: str) -> Iterator[tuple[Key, str, ast.expr | None]]:
        match node:
            case ast.ClassDef():
                owner = node.name
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                name = ast.unparse(target).removeprefix("self.")
            case ast.FunctionDef(decorator_list=decorators) if decorators:
                name = node.name
            case ast.Name(id=maker) if maker in LOCK_MAKERS:  # called, or given as a factory
                yield Key(module, name), owner, None
            case ast.Call(func=ast.Name(id=maker), args=arguments) if maker in BOUND_MAKERS:
                yield Key(module, name), owner, arguments[0]
            case ast.Call(func=ast.Name(id=maker), args=arguments) if maker in THREAD_MAKERS:
                named = arguments[THREAD_MAKERS[maker]]
                if module not in MAKERS:
                    assert isinstance(named, ast.Constant), (module, "the name of a thread is a literal")
                    yield Key(module, str(named.value)), owner, None
        for child in ast.iter_child_nodes(node):
            yield from walk(child, owner, name)

    yield from walk(tree, "", "")


@cache
def resources() -> Mapping[Key, object]:
    """Return each resource with its size; None if that is known at run time only."""
    return {
        key: None if size is None else _evaluate(key.module, owner, size)
        for module, tree in trees().items()
        if module != MAKERS[0]
        for key, owner, size in find_resources(module, tree)
    }


def _evaluate(module: str, owner: str, size: ast.expr) -> object:
    names = vars(import_module("notifier." + module.removesuffix(".py").replace("/", ".")))
    try:
        return eval(ast.unparse(size), dict(names))
    except NameError:
        return None


def find_unregistered(module: str, tree: ast.AST, bounds: set[str]) -> Iterator[str]:
    """Yield the locks, slots, executors, threads and bounded containers that no helper makes. `bounds`: known names."""
    annotations = _annotations_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.keyword(arg=name) | ast.alias(name=name) if (
                name in FORBIDDEN
            ):
                if id(node) not in annotations:
                    yield f"{module} {name}"
            case ast.Call(func=function, args=arguments, keywords=keywords):
                name = ast.unparse(function).rpartition(".")[2]
                if name in ("deque", "Queue") and len(arguments) + len(keywords) > (name == "deque"):
                    yield f"{module}:{node.lineno} {name} with a bound"
                if name == "TCPConnector":
                    limit = next((ast.unparse(each.value) for each in keywords if each.arg == "limit"), "")
                    if limit not in bounds | {"0"}:
                        yield f"{module}:{node.lineno} {name} with the limit {limit or 100}"
                if name == "popitem" and keywords and not bounds & set(_names_in(tree)):
                    yield f"{module}:{node.lineno} a cache without a registered bound"
            case ast.Compare(left=left, comparators=[right]):
                sides = [ast.unparse(left), ast.unparse(right)]
                if any(side.startswith("len(self.") for side in sides):
                    names = {part for part in _names_in(node) if part.strip("_").isupper()}
                    for unknown in sorted(names - bounds - OF_ONE):
                        yield f"{module}:{node.lineno} a container bounded by {unknown}"


def _annotations_in(tree: ast.AST) -> set[int]:
    """Return the `id` of each node in an annotation."""
    return {
        id(part)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
        for part in ast.walk(annotation)
    }


def _names_in(tree: ast.AST) -> Iterator[str]:
    return (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


@cache
def rows() -> Mapping[Key, list[str]]:
    """Return the cells of the table's rows after the first, which has the module and the name."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if first := re.match(r"\| `([\w/]+\.py)` `([^`]+)` \| ", line):
            cells = [cell.strip() for cell in line[first.end() :].removesuffix("|").split(" | ")]
            assert Key(*first.groups()) not in found, first[0]
            found[Key(*first.groups())] = cells
    return found


def forms(size: object) -> list[set[str]]:
    """Return the ways in which the page may write each number of a size."""
    match size:
        case dict():
            return [form for each in size.values() for form in forms(each)]
        case tuple():
            return [form for each in size for form in forms(each)]
        case int() | float():
            return [
                {
                    f"{size:,}",
                    f"{size:,.0f}",
                    f"{size:g}",
                    f"{size / 2**20:g} MiB",
                    f"{size / 2**10:g} KiB",
                    f"{size:.3g}",
                }
            ]
    return []


def test_each_resource_has_a_row_and_each_row_a_resource() -> None:
    """Both ways. So a bound is removed together with its row."""
    assert sorted(rows()) == sorted(resources())
    assert len(rows()) > 100


def test_rows_have_the_figures_of_the_code() -> None:
    """A bound that changes fails until its row is read again."""
    wrong = {
        key: size
        for key, size in resources().items()
        for numbers in forms(size)
        if not numbers & set(re.findall(r"[\d.,]*\d(?: [KM]iB)?", rows()[key][0]))
    }
    assert wrong == {}


def test_each_row_is_complete() -> None:
    """The bound, its holder and for how long, what others get, and a test that exists or why nobody can hold it."""
    for key, cells in rows().items():
        assert len(cells) == 4, key
        assert all(cells), key
        file, names = "", list(NAMED.finditer(cells[-1]))
        assert bool(names) != cells[-1].startswith(UNTESTED), key
        for name in names:
            file = name["file"] or file
            assert f"def {name['test']}(" in (ROOT / file).read_text(), (key, name[0])


def test_nothing_shared_is_made_elsewhere() -> None:
    """A lock, semaphore, executor, thread, connector, queue or cache that the page does not have fails here."""
    bounds = {name for key in resources() for name in re.findall(r"\w+", key.name)}
    assert [
        each
        for module, tree in trees().items()
        if module != MAKERS[0]
        for each in find_unregistered(module, tree, bounds)
    ] == []


def test_each_prefetch_is_a_registered_bound() -> None:
    """A consumer elsewhere would take messages from others without a row."""
    calls = Counter(
        module
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("basic_qos")
    )
    assert calls == Counter(PREFETCHES.keys())
    assert set(PREFETCHES.values()) <= set(resources())


def find_events(tree: ast.AST) -> int:
    """Count the events and futures that the module makes. If many parties wait for one, `shared_event` makes it."""
    annotations = _annotations_in(tree)
    names = ("Event", "create_future")
    made = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in names)
    return sum(id(node) not in annotations for node in made)


def test_each_event_is_registered() -> None:
    """A new event or future fails until it is compared with the table of the page."""
    counts = {module: find_events(tree) for module, tree in trees().items() if module != MAKERS[0]}
    assert {module: count for module, count in counts.items() if count} == OF_ONE_TASK
    assert find_events(ast.parse("wake: asyncio.Event = field(default_factory=asyncio.Event)")) == 1


def shields(tree: ast.AST) -> bool:
    """Return True if the module shields work from the end of a caller: others may wait for it, too."""
    return any(isinstance(node, ast.Attribute) and node.attr == "shield" for node in ast.walk(tree))


def makes_results(tree: ast.AST) -> bool:
    """Return True if the module makes a shared task or future."""
    return not RESULT_MAKERS.isdisjoint(_names_in(tree))


def test_each_shielded_task_is_registered() -> None:
    """A task that is shielded from one of its callers has several."""
    found = {module for module, tree in trees().items() if shields(tree) and not makes_results(tree)}
    assert found - set(MAKERS) == SHIELDED_OF_ONE
    assert shields(ast.parse("await asyncio.shield(self._task)"))
    assert not makes_results(ast.parse("self._task = asyncio.create_task(work())"))


@pytest.mark.parametrize(
    "source",
    [
        "slots = asyncio.Semaphore(4)",
        "self._lock = asyncio.Lock()",
        "taking: asyncio.Lock = field(default_factory=asyncio.Lock)",
        "from threading import RLock\nlock = RLock()",
        "ready = asyncio.Condition()",
        "from asyncio import BoundedSemaphore as Slots\nslots = Slots(4)",
        "threading.Thread(target=work).start()",
        "make = threading.Timer",
        "await asyncio.to_thread(work)",
        "loop.run_in_executor(None, work)",
        "with ThreadPoolExecutor(1) as pool: ...",
        "@lru_cache\ndef f(): ...",
        "aiohttp.TCPConnector(ssl=context)",
        "aiohttp.TCPConnector(limit=64)",
        "queue = asyncio.Queue(maxsize=10)",
        "queue = asyncio.Queue(10)",
        "ring = deque(maxlen=10)",
        "ring = deque((), 10)",
        "if len(self._cache) >= MAX_CACHED: self._cache.clear()",
        "while len(self._cache) > self._most: self._cache.popitem(last=False)",
    ],
)
def test_what_is_made_elsewhere_is_found(source: str) -> None:
    """Each of these fails `test_nothing_shared_is_made_elsewhere`."""
    assert [*find_unregistered("m.py", ast.parse(source), {"MAX_SETS"})]


def test_registered_ways_are_accepted() -> None:
    """Otherwise the test above could not fail."""
    source = "slots: asyncio.Semaphore = shared_slots(4)\nthread: threading.Thread | None = None\nasyncio.Queue()\n"
    source += "opening: dict[str, asyncio.Lock] = defaultdict(shared_lock)"
    assert [*find_unregistered("m.py", ast.parse(source), set())] == []
    found = [key for key, _, _ in find_resources("m.py", ast.parse(source))]
    assert found == [Key("m.py", "slots"), Key("m.py", "opening")]
