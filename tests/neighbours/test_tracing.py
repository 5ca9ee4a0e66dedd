"""Neighbours, for real: what tracing tools install, in the loop, in asyncio and in its classes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiodebug.log_slow_callbacks
import pytest
import sentry_sdk
from helpers import Log, fail, forever, noop, settle
from opentelemetry import trace
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.asyncio import enable_asyncio_integration
from sentry_sdk.transport import Transport

from quattro import TaskGroup


async def child(n: int, passes: int = 1) -> int:
    """A task that gives its loop back now and then."""
    for _ in range(passes):
        await asyncio.sleep(0)
    return n


class Mail(Transport):
    """Keeps what Sentry would send."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, Any]] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.items += [(item.type, item.payload.json) for item in envelope.items if item.payload.json]

    def of_kind(self, kind: str) -> list[Any]:
        """What was sent of a kind."""
        return [content for type_, content in self.items if type_ == kind]


# One of each for all tests: each registers what to do after a fork, which nothing takes back.


@functools.cache
def client() -> sentry_sdk.Client:
    """What sends to Sentry."""
    options: dict[str, Any] = {"default_integrations": False, "auto_enabling_integrations": False}
    return sentry_sdk.Client(transport=Mail(), traces_sample_rate=1.0, integrations=[], **options)


@contextmanager
def sentry() -> Iterator[Mail]:
    """Sentry's integration, which sets a task factory that runs each coroutine inside one of its own."""
    mail, loop = Mail(), asyncio.get_running_loop()
    factory = loop.get_task_factory()
    client().transport = mail
    sentry_sdk.get_global_scope().set_client(client())
    enable_asyncio_integration()
    try:
        yield mail
    finally:
        loop.set_task_factory(factory)
        sentry_sdk.get_global_scope().set_client(None)
        client().transport = None
        del loop.close


@pytest.mark.parametrize("limit", [None, 2])
async def test_sentry(limit: int | None) -> None:
    """Sentry has a span for each task, under the name of its coroutine: foreground, queued, background, callables."""

    async def background() -> None:
        await forever()

    async def called() -> None:
        await asyncio.sleep(0)

    with sentry() as mail, sentry_sdk.start_transaction(name="request"):
        async with TaskGroup(concurrency_limit=limit) as tg:
            tg.create_background_task(background())
            tasks = [tg.create_task(child(n)) for n in range(5)]
            tg.create_task(called)
    assert [task.result() for task in tasks] == list(range(5))
    (transaction,) = mail.of_kind("transaction")
    names = sorted(span["description"].rpartition(".")[2] for span in transaction["spans"])
    assert names == ["background", "called"] + ["child"] * 5


@pytest.mark.parametrize("limit", [None, 1])
async def test_sentry_and_errors(limit: int | None) -> None:
    """Sentry reports a task's error once; the group aborts, and what never started is closed without a warning."""
    with sentry() as mail:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup(concurrency_limit=limit) as tg:
                tg.create_background_task(forever())
                tasks = [tg.create_task(fail(ValueError("mine"), 3))]
                tasks += [tg.create_task(forever()) for _ in range(5)]
                await settle()
    assert repr(caught.value.exceptions) == "(ValueError('mine'),)"
    (event,) = mail.of_kind("event")
    assert event["exception"]["values"][-1]["value"] == "mine"
    assert all(task.cancelled() for task in tasks[1:])


async def test_sentry_and_the_queue() -> None:
    """Behind Sentry's factory the limit holds, starts are in order, and a task can be cancelled out of the queue."""
    log = Log()
    with sentry():
        async with TaskGroup(concurrency_limit=2) as tg:
            tasks = [tg.create_task(log.job(n, 3)) for n in range(8)]
            await settle(1)
            tasks[5].cancel()
    assert log.started == [0, 1, 2, 3, 4, 6, 7] and log.peak == 2 and tasks[5].cancelled()


@functools.cache
def exporter() -> tuple[InMemorySpanExporter, TracerProvider]:
    """What keeps OpenTelemetry's spans."""
    spans, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return spans, provider


@contextmanager
def telemetry(monkeypatch: pytest.MonkeyPatch, names: str) -> Iterator[tuple[trace.Tracer, InMemorySpanExporter]]:
    """OpenTelemetry's instrumentation, which patches functions of asyncio and the create_task() of its TaskGroup."""
    spans, provider = exporter()
    spans.clear()
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE", names)
    instrumentor = AsyncioInstrumentor()
    instrumentor.instrument(tracer_provider=provider, meter_provider=NoOpMeterProvider())
    try:
        yield provider.get_tracer(__name__), spans
    finally:
        instrumentor.uninstrument()


def parents(spans: InMemorySpanExporter) -> dict[str, set[str | None]]:
    """The names of the spans above the spans of a name."""
    finished = spans.get_finished_spans()
    by_id = {span.context.span_id: span for span in finished if span.context is not None}

    def parent(span: ReadableSpan) -> str | None:
        return by_id[span.parent.span_id].name if span.parent else None

    return {span.name: {parent(other) for other in finished if other.name == span.name} for span in finished}


@pytest.mark.parametrize("limit", [None, 2])
async def test_opentelemetry(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    """Spans in tasks of a group are below the span in which create_task() was called, also from the queue."""
    with telemetry(monkeypatch, "traced") as (tracer, spans):

        async def traced() -> None:
            await asyncio.sleep(0)

        async def work(name: str) -> None:
            with tracer.start_as_current_span(name):
                await asyncio.create_task(traced())

        with tracer.start_as_current_span("request"):
            async with TaskGroup(concurrency_limit=limit) as tg:
                tg.create_background_task(work("background"))
                for n in range(5):
                    tg.create_task(work("called") if n else lambda: work("called"))
                with tracer.start_as_current_span("section"):
                    tg.create_task(work("in section"))
                await settle()
    assert parents(spans) == {
        "request": {None},
        "section": {"request"},
        "background": {"request"},
        "called": {"request"},
        "in section": {"section"},
        "asyncio coro-traced": {"background", "called", "in section"},
    }


async def test_opentelemetry_of_a_groups_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it traces of asyncio.TaskGroup's tasks it traces of ours through a subclass of two lines."""
    with telemetry(monkeypatch, "child") as (tracer, spans):

        class Traced(TaskGroup):
            def create_task(self, coro: Any, **kwargs: Any) -> Any:
                return super().create_task(AsyncioInstrumentor().trace_item(coro), **kwargs)

        with tracer.start_as_current_span("request"):
            async with Traced(concurrency_limit=2) as tg:
                tasks = [tg.create_task(child(n)) for n in range(5)]
    assert [task.result() for task in tasks] == list(range(5))
    assert parents(spans)["asyncio coro-child"] == {"request"}
    assert len(spans.get_finished_spans()) == 6


@pytest.mark.loops("asyncio", "debug", "eager", "factory")
async def test_aiodebug(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiodebug, which patches the loop's handles, names the tasks of a group by their coroutines. [T7]"""
    monkeypatch.setattr(asyncio.Handle, "_run", asyncio.Handle._run)  # put back in the end
    slow: list[str] = []
    aiodebug.log_slow_callbacks.enable(0, lambda name, _: slow.append(name))
    async with TaskGroup(concurrency_limit=2) as tg:
        for n in range(5):
            tg.create_task(child(n, 3), name=f"job {n}")
        tg.create_background_task(forever(), name="job 5")
    for n in range(5):
        assert any(f"job {n}" in name and "child()" in name for name in slow)
    assert any("job 5" in name and "forever()" in name for name in slow)


@pytest.mark.loops("asyncio", "uvloop", "eager")
async def test_all_of_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools on top of each other, and a group on top of them all."""
    original = asyncio.get_running_loop().create_task
    seen: list[Any] = []

    def create_task(coro: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return original(coro, **kwargs)

    with sentry() as mail, telemetry(monkeypatch, "child") as (tracer, _), tracer.start_as_current_span("request"):
        monkeypatch.setattr(asyncio.get_running_loop(), "create_task", create_task)
        with sentry_sdk.start_transaction(name="request"):
            async with TaskGroup(concurrency_limit=2) as tg:
                tasks = [tg.create_task(child(n), name=str(n)) for n in range(5)]
                tg.create_background_task(noop)
                await settle()
    assert [task.result() for task in tasks] == list(range(5))
    assert seen == [{"name": str(n)} for n in range(5)] + [{}]
    assert len(mail.of_kind("transaction")[0]["spans"]) == 6
