"""The studio's routes. Inference and files run in threads; the event loop only passes messages on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from infostylegan.codes import CodeError
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage
from infostylegan.studio.jobs import Busy, Job, Jobs
from infostylegan.studio.model import (
    MAX_SEED,
    BadSettings,
    Model,
    Pixels,
    Settings,
    encode_png,
    number_within,
    strip_values,
    with_code,
)
from infostylegan.studio.photograph import MAX_BYTES
from infostylegan.studio.photos import Photos
from infostylegan.studio.security import Access, Gate, refuse
from infostylegan.studio.studies import Studies
from infostylegan.studio.walks import make_walk, read_walk
from metrics.errors import MetricError

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_JSON = 64 << 10  # bytes
MAX_WAITING = 128  # pictures asked for and not yet drawn; beyond that the answer is "later"
PATIENCE = 60.0  # seconds that a request may take to arrive

Result = TypeVar("Result")


class TooMuch(Exception):  # noqa: N818  named for what it is
    """A request larger or slower than the studio reads."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Studio:
    """The state behind the routes: one model, its jobs, the photographs projected so far, the studies."""

    def __init__(self, model: Model, studies: Path) -> None:
        self.model = model
        self.jobs = Jobs(explain)
        self.photos = Photos(model)
        self.studies = Studies(studies)
        # One thread draws for everybody: OpenMP keeps a team of threads for each thread that asks for work.
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="painter")
        self._gate = asyncio.Semaphore(1)
        self._waiting = 0
        self._uploading = False

    def close(self) -> None:
        self.jobs.close()
        self._painter.shutdown(wait=True, cancel_futures=True)

    def pixels(self, settings: Sequence[Settings]) -> Pixels:
        """Pictures of several settings that differ in their codes alone, uint8 [N, H, W, C]."""
        with self.model.turn:
            return (self.photos if settings[0].photo else self.model).pixels(settings)

    async def draw(self, request: Request, paint: Callable[[], Result]) -> Result:
        """paint() in the painter's thread, in the order of asking. Nobody draws for who has gone away."""
        if self._waiting >= MAX_WAITING:
            raise TooMuch(503, "too many pictures are being asked for at once; try again")
        self._waiting += 1
        try:
            async with self._gate:
                if await request.is_disconnected():
                    raise ClientDisconnect
                return await asyncio.get_running_loop().run_in_executor(self._painter, paint)
        finally:
            self._waiting -= 1

    # ---- the page --------------------------------------------------------------------------------------

    async def describe(self, request: Request) -> Response:
        return JSONResponse(self.model.describe())

    async def image(self, request: Request) -> Response:
        settings = self.model.read(await read_json(request))

        def paint() -> bytes:
            about = None if settings.photo else self.model.about(settings)
            return encode_png(self.pixels([settings])[0], about)

        return Response(await self.draw(request, paint), media_type="image/png")

    async def strip(self, request: Request) -> Response:
        """One code through its range with all else as it is: the pictures side by side."""
        document = await read_json(request)
        settings = self.model.read(document)
        name = document.get("code")
        if name not in self.model.G.codes.names:
            raise BadSettings(f"this generator has no code {str(name)[:40]!r}")
        index = self.model.G.codes.names.index(name)
        values = strip_values(self.model.G.codes[index])

        def paint() -> bytes:
            swept = [with_code(settings, index, value) for value in values]
            return encode_png(np.concatenate(list(self.pixels(swept)), axis=1))

        return Response(await self.draw(request, paint), media_type="image/png")

    async def seed(self, request: Request) -> Response:
        """The codes that belong to a seed."""
        seed = number_within(request.path_params["seed"], "seed", 0, MAX_SEED)
        return JSONResponse({"codes": self.model.drawn_codes(int(seed))})

    async def real(self, request: Request) -> Response:
        pixels = await run_in_threadpool(self.model.real, request.path_params["index"])
        return Response(encode_png(pixels), media_type="image/png")

    # ---- jobs ------------------------------------------------------------------------------------------

    async def start_photo(self, request: Request) -> Response:
        """Project the body, an image file, or `?data=INDEX`, an image of the data set."""
        query = request.query_params
        if self._uploading or self.jobs.running:  # before reading, so that one upload at a time is in memory
            raise Busy("something else is being made; wait for it or cancel it")
        self._uploading = True
        try:
            content = await read_body(request, MAX_BYTES)
            index = whole(query["data"], "data") if "data" in query else None
            if index is not None:
                await run_in_threadpool(self.model.real, index)  # refused at once where there is none
            return started(self.jobs.start("photo", self.photos.projecting(content, index)))
        finally:
            self._uploading = False

    async def start_walk(self, request: Request) -> Response:
        document = await read_json(request)
        wish = read_walk(self.model, document)
        return started(self.jobs.start("walk", lambda job: make_walk(job, self.model, self.photos, wish)))

    async def start_study(self, request: Request) -> Response:
        document = await read_json(request)
        snapshot = self.model.snapshot
        return started(self.jobs.start("study", lambda job: self.studies.create(job, snapshot, document)))

    async def running(self, request: Request) -> Response:
        """The job under way, if any: a page that is opened anew takes it up."""
        job = self.jobs.running
        return JSONResponse({"running": job.public() if job else None})

    async def job(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return refuse(404, "there is no such job, or it is long over")
        if request.method == "DELETE":
            job.cancel()
        return JSONResponse(job.public())

    async def job_preview(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None or job.preview is None:
            return refuse(404, "there is nothing to see yet")
        return Response(job.preview, media_type="image/png")

    async def job_file(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None or job.file is None:
            return refuse(404, "there is no such file, or not yet")
        return Response(job.file[1], media_type=job.file[0])

    async def photo(self, request: Request) -> Response:
        """The photograph itself, as it was projected."""
        photo = self.photos.find(request.path_params["id"])
        return Response(encode_png(photo.original), media_type="image/png")

    # ---- studies ---------------------------------------------------------------------------------------

    async def list_studies(self, request: Request) -> Response:
        return JSONResponse({"studies": await run_in_threadpool(self.studies.summaries)})

    async def progress(self, request: Request) -> Response:
        rater = request.query_params.get("rater", "")
        return JSONResponse(
            await run_in_threadpool(self.studies.progress, request.path_params["name"], rater)
        )

    async def vote(self, request: Request) -> Response:
        document = await read_json(request)
        answer = document.get("answer", "missing")
        if answer is not None and not isinstance(answer, bool):
            raise MetricError("an answer is true, false, or null to take one back")
        rater, item = str(document.get("rater", "")), str(document.get("item", ""))
        name = request.path_params["name"]
        return JSONResponse(await run_in_threadpool(self.studies.vote, name, rater, item, answer))

    async def row(self, request: Request) -> Response:
        name, item = request.path_params["name"], request.path_params["item"]
        return FileResponse(await run_in_threadpool(self.studies.row, name, item), media_type="image/png")

    async def score(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.studies.score, request.path_params["name"]))


def make_app(model: Model, studies: Path, access: Access) -> Starlette:
    """The studio as an ASGI application."""
    studio = Studio(model, studies)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(studio.close)

    routes = [
        *static_routes(),
        Route("/api/model", studio.describe),
        Route("/api/image", studio.image, methods=["POST"]),
        Route("/api/strip", studio.strip, methods=["POST"]),
        Route("/api/seed/{seed:int}", studio.seed),
        Route("/api/data/{index:int}", studio.real),
        Route("/api/photos/{id}", studio.photo),
        Route("/api/jobs", studio.running),
        Route("/api/jobs/photo", studio.start_photo, methods=["POST"]),
        Route("/api/jobs/walk", studio.start_walk, methods=["POST"]),
        Route("/api/jobs/study", studio.start_study, methods=["POST"]),
        Route("/api/jobs/{id}", studio.job, methods=["GET", "DELETE"]),
        Route("/api/jobs/{id}/preview", studio.job_preview),
        Route("/api/jobs/{id}/file", studio.job_file),
        Route("/api/studies", studio.list_studies),
        Route("/api/studies/{name}", studio.progress),
        Route("/api/studies/{name}/votes", studio.vote, methods=["POST"]),
        Route("/api/studies/{name}/rows/{item}", studio.row),
        Route("/api/studies/{name}/score", studio.score),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Gate, access=access)],
        exception_handlers={
            **dict.fromkeys((*MENDABLE, Busy, TooMuch, ClientDisconnect), answer_mistake),
            404: answer_missing,
            405: answer_missing,
            500: answer_failure,
        },
    )
    app.state.studio = studio
    return app


def static_routes() -> list[Route]:
    """A route for each file of the page. Files are read once: no request is ever turned into a path."""

    def route(path: Path) -> Route:
        content, kind = path.read_bytes(), TYPES[path.suffix]

        async def serve(request: Request) -> Response:
            return Response(content, media_type=kind)

        return Route("/" if path.name == "index.html" else f"/{path.name}", serve)

    return [route(path) for path in sorted(STATIC.iterdir()) if path.suffix in TYPES]


# ---- what goes wrong -----------------------------------------------------------------------------------

# Mistakes that whoever sits before the page can mend: their messages are shown there.
MENDABLE: tuple[type[Exception], ...] = (
    BadSettings,
    BadImage,
    CodeError,
    DataError,
    MetricError,
)


def explain(error: Exception) -> str | None:
    """The message of a mistake that can be mended; None for a fault of the program."""
    return str(error) if isinstance(error, MENDABLE) else None


async def answer_mistake(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    if isinstance(error, TooMuch):
        answer = refuse(error.status, str(error))
        answer.headers["Connection"] = "close"  # what it has not read of the request is not the next one
        return answer
    return refuse(409 if isinstance(error, Busy) else 400, str(error))


async def answer_missing(request: Request, error: Exception) -> Response:
    return refuse(getattr(error, "status_code", 404), "there is nothing here by that name")


async def answer_failure(request: Request, error: Exception) -> Response:
    return refuse(500, "the studio has failed at this; the terminal says how")


# ---- requests ------------------------------------------------------------------------------------------


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes. Raises TooMuch at the first byte above, or after PATIENCE."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise TooMuch(413, f"larger than {limit >> 10:,} KiB")

    async def read() -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise TooMuch(413, f"larger than {limit >> 10:,} KiB")
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), PATIENCE)
    except asyncio.TimeoutError:
        raise TooMuch(408, "the request took too long to arrive") from None


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises BadSettings or TooMuch."""
    body = await read_body(request, MAX_JSON)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadSettings("the request is no JSON") from None
    if not isinstance(document, dict):
        raise BadSettings("the request is no JSON object")
    return document


def whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise BadSettings(f"{what}: a whole number")
    return int(text)


def started(job: Job) -> Response:
    return JSONResponse(job.public(), status_code=202)
