"""What takes longer than a request: projections, walks, the rows of a study. One runs at a time."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

KEPT = 4  # finished jobs whose results can still be fetched


class FairLock:
    """A lock handed over in the order of asking.

    With a plain lock, whoever releases it and asks again at once gets it again: a slider would wait for a
    whole projection, and not for one step of it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    def acquire(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set()  # held on, by another
            else:
                self._held = False

    def yield_turn(self) -> None:
        """Let those who wait go first, and come back."""
        self.release()
        self.acquire()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()


class Cancelled(Exception):  # noqa: N818  no error: somebody has asked for it
    """The job was called off."""


class Busy(Exception):  # noqa: N818  named for what it is
    """Another job is running."""


@dataclass
class Job:
    """One piece of work, seen from outside. Its fields are written by the worker and read by anybody."""

    kind: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = "running"  # running, done, failed, cancelled
    done: int = 0
    total: int = 0
    error: str = ""
    preview: bytes | None = None  # a picture of how far it has come
    previews: int = 0  # how many there have been
    result: Any = None  # plain data, for the page
    file: tuple[str, bytes] | None = None  # (media type, content), to be fetched
    _called_off: threading.Event = field(default_factory=threading.Event, repr=False)

    def step(self, done: int, total: int, preview: bytes | None = None) -> None:
        """Tell how far it has come. Raises Cancelled where somebody has called the job off."""
        self.done, self.total = done, total
        if preview is not None:
            self.preview, self.previews = preview, self.previews + 1
        if self._called_off.is_set():
            raise Cancelled

    def cancel(self) -> None:
        self._called_off.set()

    def public(self) -> dict[str, Any]:
        return {
            "id": self.id, "kind": self.kind, "state": self.state, "done": self.done, "total": self.total,
            "error": self.error, "previews": self.previews, "result": self.result,
        }  # fmt: skip


Work = Callable[[Job], None]


class Jobs:
    """The worker, and the last few jobs by id.

    explain   an exception that a user can mend -> its message, anything else -> None
    """

    def __init__(self, explain: Callable[[Exception], str | None]) -> None:
        self._explain = explain
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="job")
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._mutex = threading.Lock()

    def start(self, kind: str, work: Work) -> Job:
        """Begin `work`. Raises Busy while another job is running."""
        with self._mutex:
            if self.running is not None:
                raise Busy("something else is being made; wait for it or cancel it")
            job = Job(kind)
            self._jobs[job.id] = job
            while len(self._jobs) > KEPT:
                self._jobs.popitem(last=False)
        self._worker.submit(self._run, job, work)
        return job

    def get(self, id: str) -> Job | None:
        return self._jobs.get(id)

    @property
    def running(self) -> Job | None:
        return next((job for job in list(self._jobs.values()) if job.state == "running"), None)

    def close(self) -> None:
        """Call off whatever runs, and wait for it."""
        for job in list(self._jobs.values()):
            job.cancel()
        self._worker.shutdown(wait=True)

    def _run(self, job: Job, work: Work) -> None:
        try:
            work(job)
            job.state = "done"
        except Cancelled:
            job.state = "cancelled"
        except Exception as error:
            message = self._explain(error)
            if message is None:
                import traceback

                traceback.print_exc()
            job.error = message or "it failed; the terminal says how"
            job.state = "failed"  # last: whoever waits for it may then look at the rest
