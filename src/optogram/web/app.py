"""The explorer as a web application: its addresses, and what is answered at each.

Starlette without FastAPI: nothing here is validated by type, documented by schema or injected, and
so nothing of what FastAPI adds, nor of what it depends on, would be used.
"""

import asyncio
import contextlib
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from optogram.pictures.errors import RequestError
from optogram.web import asking, pages
from optogram.web.drawing import STATIC, as_text, drawn, in_chunks, sheets_of, streamed
from optogram.web.explorer import Explorer
from optogram.web.jobs import ENDED, Full, Job, Jobs
from optogram.web.links import Links
from optogram.web.safety import NONCE, Guard, Limits, hosts_of
from optogram.web.unit import extras
from optogram.web.uploads import Uploads

ANNOUNCE = 0.1
HEARTBEAT = 10.0
KINDS = ("picture", "patch", "projection")
PICKER = 60


@dataclass
class View:
    """A page: its template, what it says (the JSON twin), and what only the drawing needs.

    One that is long is `streamed`: its beginning is shown while the rest is still being drawn.
    """

    template: str
    section: str
    facts: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    streamed: bool = False


def create(
    *atlases: Any,
    limits: Limits | None = None,
    hosts: Iterable[str] = (),
    token: str | None = None,
    live: bool = True,
    source: tuple[str, str | None] | None = None,
) -> ASGIApp:
    """The explorer of an atlas as an ASGI application; further atlases are there to compare with.

    Args:
        atlases: opened atlases; the first is at `/`, the next at `/with/1/` and so on.
        limits: what visitors may send and ask for.
        hosts: names besides loopback's under which it may be asked.
        token: what a visitor has to show once; None for everybody on this machine.
        live: whether notes may be kept and work be asked for.
        source: (name, weights file) of the network, where it is not what the first atlas says.
    """
    limits = limits or Limits()
    jobs, uploads = Jobs(limits.jobs), Uploads(limits.uploads, limits.pixels)
    explorers = [
        Explorer(
            atlas=atlas,
            jobs=jobs,
            uploads=uploads,
            links=Links(f"/with/{number}" if number else "", mark=_mark(atlas)),
            limits=limits,
            source=None if number else source,
            live=live,
        )
        for number, atlas in enumerate(atlases)
    ]
    for explorer in explorers:
        explorer.others = [other for other in explorers if other is not explorer]
    site = _site(explorers[0], [_mounted(each) for each in explorers[1:]])

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        watching = asyncio.create_task(_refresh(explorers))
        try:
            yield
        finally:
            watching.cancel()
            await run_in_threadpool(jobs.close)

    site.router.lifespan_context = lifespan
    site.state.explorers = explorers
    zipped = GZipMiddleware(site, minimum_size=1024)
    return Guard(zipped, hosts_of(hosts), token, limits.body)


def _site(explorer: Explorer, mounts: list[BaseRoute]) -> Starlette:
    static = Mount("/static", StaticFiles(directory=STATIC))
    app = Starlette(
        routes=[*mounts, static, *ROUTES],
        exception_handlers={
            RequestError: _said,
            HTTPException: _said,
            Exception: _broken,
        },
    )
    app.state.explorer = explorer
    app.state.listeners = 0
    return app


def _mounted(explorer: Explorer) -> Mount:
    return Mount(explorer.links.prefix, _site(explorer, []))


async def _refresh(explorers: list[Explorer]) -> None:
    """A build that goes on is seen as it goes."""
    while True:
        await asyncio.sleep(5)
        for explorer in explorers:
            with contextlib.suppress(RequestError, OSError):
                await run_in_threadpool(explorer.atlas.refresh)


# -- pages -----------------------------------------------------------------------------------------


def network(explorer: Explorer, request: Request) -> View:
    """The layers in order."""
    return View("network.html", "network", pages.network_page(explorer.atlas))


def layer(explorer: Explorer, request: Request) -> View:
    """All units of a layer."""
    atlas = explorer.atlas
    found = pages.find_layer(atlas, request.path_params["name"])
    if _is_json(request):
        facts = pages.layer_page(atlas, found, request.query_params)
        return View("layer.html", "network", facts)
    facts, parts = pages.layer_parts(atlas, found, request.query_params)
    head, chunks = in_chunks(explorer.links, facts["layer"], parts)
    more = {"sorts": pages.SORTS, "shows": list(pages.SHOWS), "chunks": chunks, **head}
    return View("layer.html", "network", facts, more, streamed=True)


def unit(explorer: Explorer, request: Request) -> View:
    """One unit."""
    atlas = explorer.atlas
    found, number = pages.find_unit(atlas, request.path_params["address"])
    record = atlas.unit(found.id, number)
    facts = pages.unit_page(atlas, record)
    here = explorer.links.unit(facts["layer"], number)
    jobs = [_job(job) for job in explorer.about_page(here) if not job.over]
    more = extras(atlas, record, facts) | {"jobs": jobs, "may_write": explorer.live}
    more |= {"may_work": explorer.live, "form": None}
    asked = "technique" in request.query_params  # else nobody waits until torch is imported
    if explorer.live and not _is_json(request) and (asked or asking.loaded()):
        more["form"] = _visual_form(request)
    return View("unit.html", "network", facts, more)


def images(explorer: Explorer, request: Request) -> View:
    """Where an image is chosen or sent."""
    atlas, chosen = explorer.atlas, request.query_params.get("data")
    start = pages.whole(request.query_params.get("start") or "0", "start")
    rows = []
    for number in range(len(atlas.datasets)):
        facts = pages.dataset_facts(atlas, number)
        first = start if chosen in (None, "", str(number)) else 0
        numbers = pages.kept_images(atlas, atlas.datasets[number], first, PICKER)
        more = numbers[-1] + 1 if len(numbers) == PICKER else None
        rows.append(facts | {"numbers": numbers, "first": first, "after": more})
    extra = {"limits": explorer.limits, "problem": None}
    return View("images.html", "image", {"data": rows}, extra)


def image(explorer: Explorer, request: Request) -> View:
    """What the network makes of an image."""
    atlas, ref = explorer.atlas, request.path_params["ref"]
    facts: dict[str, Any] = {"ref": ref, **explorer.named(ref)}
    explorer.webp(ref)  # an image that is not there is said to be so, before anything is asked
    try:
        looked, problem = explorer.looked_at(ref), None
    except RequestError as error:
        looked, problem = {"predictions": [], "unusual": []}, str(error)
    facts |= {"predictions": looked["predictions"], "problem": problem}
    facts["unusual"] = [
        {"layer": pages.layer_facts(found), "tile": tile, "z": z, "value": value}
        for _, number, which, z, value in looked["unusual"]
        for found in (atlas.layer(number),)
        for tile in pages.some_tiles(atlas, found, [which])
    ]
    page = explorer.links.image(ref)
    jobs = explorer.about_page(page)
    facts["maps"] = [
        {"job": job.number, "title": job.title, **job.result["map"]}
        for job in jobs
        if job.state == "done" and job.result
    ]
    more: dict[str, Any] = {"jobs": [_job(job) for job in jobs if not job.over], "form": None}
    failed = [job.error for job in jobs if job.state == "failed" and job.error]
    if failed and problem is None:
        facts["problem"] = failed[0]
    if explorer.live and problem is None and not _is_json(request):
        more["form"] = _map_form(explorer, request, looked["predictions"])
    return View("image.html", "image", facts, more)


def compare(explorer: Explorer, request: Request) -> View:
    """Two units, or two networks."""
    query = request.query_params
    a, b, which = (query.get(name, "").strip()[:200] for name in ("a", "b", "with"))
    other = explorer
    if which:
        number = pages.whole(which, "with")
        found = {_number(each): each for each in explorer.others}
        if number not in found:
            raise pages.Nowhere(f"no network {number} is served here")
        other = found[number]
    facts: dict[str, Any] = {"first": None, "second": None, "layers": None}
    if a and b:
        records = [
            each.atlas.unit(found.id, number)
            for each, text in ((explorer, a), (other, b))
            for found, number in (pages.find_unit(each.atlas, text),)
        ]
        facts |= pages.compare_page(explorer.atlas, other.atlas, *records)
    elif other is not explorer:
        facts |= pages.networks_page(explorer.atlas, other.atlas)
    more: dict[str, Any] = {
        "a": a,
        "b": b,
        "problem": None,
        "there": other.links,
        "example": _example(explorer),
    }
    more["there_shape"] = list(other.atlas.network["shape"])
    more["chosen"] = _number(other) if which else None
    more["others"] = [
        {"number": _number(each), "name": each.atlas.network["name"]} for each in explorer.others
    ]
    return View("compare.html", "compare", facts, more)


def search(explorer: Explorer, request: Request) -> View:
    """What is found for some words."""
    facts = pages.search_page(explorer.atlas, request.query_params.get("q", ""))
    return View("search.html", "search", facts, {"example": _example(explorer)})


def notes(explorer: Explorer, request: Request) -> View:
    """All notes."""
    return View("notes.html", "notes", pages.notes_page(explorer.atlas))


def jobs(explorer: Explorer, request: Request) -> View:
    """What is being worked on, and what was."""
    rows = [_job(job) for job in explorer.jobs]
    more: dict[str, Any] = {"limits": explorer.limits}
    more["going"] = [row for row in rows if row["state"] not in ENDED]
    more["ended"] = [row for row in rows if row["state"] in ENDED]
    return View("jobs.html", "jobs", {"jobs": rows}, more)


def job(explorer: Explorer, request: Request) -> View:
    """One job."""
    found = explorer.jobs[request.path_params["number"]]
    about = _job(found) | {"after": "always"}
    recipe = (found.result or {}).get("recipe")
    more = {"back": found.about["page"], "back_says": f"Back to {_back(found)}"}
    more["recipe"] = as_text(recipe) if recipe else None
    return View("job.html", "jobs", {"job": about}, more)


# -- what changes something ------------------------------------------------------------------------


async def send_image(request: Request) -> Response:
    """Take an image that somebody sends, and lead to its page."""
    explorer = request.app.state.explorer
    async with request.form(max_files=1, max_fields=4) as form:
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise RequestError("no image came with the form: choose a file first")
        content, name = await file.read(), file.filename or "an image"
    if not content:
        raise RequestError("that file is empty: choose an image")
    upload = await run_in_threadpool(explorer.uploads.add, content, name)
    return _led(request, explorer.links.image(upload.key), {"image": upload.key})


async def keep_note(request: Request) -> Response:
    """Keep a note on a unit, or its name."""
    explorer = request.app.state.explorer
    entered = await _entered(request)
    if not explorer.live:
        raise RequestError("this explorer only shows: it was started with --read-only")
    found, number = pages.find_unit(explorer.atlas, entered.get("address", "")[:300])
    kind = entered.get("kind", "note")
    if kind not in ("note", "label"):
        raise RequestError("what is kept is a note or a label")
    text = entered.get("text", "").strip()
    if not text and kind == "note":
        raise RequestError("the note is empty: write something")
    if len(text) > (4000 if kind == "note" else 80):
        raise RequestError("that is too long: a note has at most 4,000 letters, a name 80")
    note = await run_in_threadpool(
        lambda: explorer.atlas.add_note(found.id, number, text, kind=kind)
    )
    back = explorer.links.unit({"name": found.name}, number)
    return _led(request, f"{back}#notes", pages.plain(note))


async def remove_note(request: Request) -> Response:
    """Take a note away."""
    explorer = request.app.state.explorer
    entered = await _entered(request)
    if not explorer.live:
        raise RequestError("this explorer only shows: it was started with --read-only")
    await run_in_threadpool(explorer.atlas.remove_note, request.path_params["key"])
    back = explorer.links.notes()
    if entered.get("back"):
        found, number = pages.find_unit(explorer.atlas, entered["back"][:300])
        back = explorer.links.unit({"name": found.name}, number) + "#notes"
    return _led(request, back, {"removed": request.path_params["key"]})


async def visualise(request: Request) -> Response:
    """Start a picture of a unit."""
    explorer = request.app.state.explorer
    entered = await _entered(request)
    found, number = pages.find_unit(explorer.atlas, request.path_params["address"])
    started = await run_in_threadpool(explorer.visualise, found, number, entered)
    return _led(request, started.about["page"], _job(started), 202)


async def make_map(request: Request) -> Response:
    """Start a map of an image."""
    explorer = request.app.state.explorer
    entered = await _entered(request)
    started = await run_in_threadpool(explorer.map, request.path_params["ref"], entered)
    query = f"?method={started.about['settings']['technique']}"
    return _led(request, started.about["page"] + query, _job(started), 202)


async def cancel(request: Request) -> Response:
    """End a job."""
    explorer = request.app.state.explorer
    ended = explorer.jobs.cancel(request.path_params["number"])
    return _led(request, ended.about["page"], _job(ended))


# -- pictures and events ---------------------------------------------------------------------------


def tile(request: Request) -> Response:
    """One picture of a unit, by numbers alone."""
    atlas, at = request.app.state.explorer.atlas, request.path_params
    kind = at["kind"]
    if not any(kind.startswith(each) and kind[len(each) :].isdecimal() for each in KINDS):
        raise HTTPException(404)
    where = (_hex(at["recipe"]), at["layer"], at["unit"], kind)
    return _webp(request, atlas.etag(*where), lambda: atlas.tile(*where), fixed=True)


def sheet(request: Request) -> Response:
    """The sprite sheet of 256 units."""
    atlas, at = request.app.state.explorer.atlas, request.path_params
    recipe, layer_id, block = _hex(at["recipe"]), at["layer"], at["block"]
    tag = atlas.sprite_etag(layer_id, recipe, block)
    return _webp(request, tag, lambda: atlas.sprites(layer_id, recipe, block))


def data_image(request: Request) -> Response:
    """A whole image of a data set."""
    explorer, at = request.app.state.explorer, request.path_params
    ref = f"{at['data']}-{at['number']}"
    return _webp(request, None, lambda: explorer.webp(ref), fixed=True)


def image_media(request: Request) -> Response:
    """An image as the network is shown it."""
    explorer, ref = request.app.state.explorer, request.path_params["ref"]
    return _webp(request, None, lambda: explorer.webp(ref))


def job_media(request: Request) -> Response:
    """A picture that a job made, or is making."""
    explorer, at = request.app.state.explorer, request.path_params
    found: Job = explorer.jobs[at["number"]]
    content = found.preview if at["name"] == "preview" else found.media.get(at["name"])
    if content is None:
        raise HTTPException(404)
    return _webp(request, None, lambda: content)


async def events(request: Request) -> Response:
    """What a job says, as server-sent events; the number of an event is the job's version."""
    explorer, state = request.app.state.explorer, request.app.state
    found: Job = explorer.jobs[request.path_params["number"]]
    last = request.headers.get("last-event-id", "")
    seen = int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else -1
    if found.over and seen >= found.version:
        return Response(status_code=204)  # an EventSource then asks no more
    if state.listeners >= explorer.limits.listeners:
        raise Full("too many pages listen already: close some")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    told = _told(explorer, found, seen, state)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


async def _told(explorer: Explorer, found: Job, seen: int, state: Any) -> AsyncIterator[str]:
    state.listeners += 1
    spoke = time.monotonic()
    try:
        yield "retry: 2000\n\n"
        while True:
            over, version = found.over, found.version
            if version != seen:
                seen, spoke = version, time.monotonic()
                facts = _job(found)
                if found.preview:
                    preview = explorer.links.job_preview(found.number)
                    facts["preview"] = f"{preview}?v={found.pictures}"
                yield f"id: {version}\nevent: job\ndata: {json.dumps(facts)}\n\n"
            elif time.monotonic() - spoke > HEARTBEAT:
                spoke = time.monotonic()
                yield ": still here\n\n"
            if over:
                return
            await asyncio.sleep(ANNOUNCE)
    finally:
        state.listeners -= 1


# -- how answers are made --------------------------------------------------------------------------


def page(make: Callable[[Explorer, Request], View]) -> Callable[[Request], Awaitable[Response]]:
    """A page as HTML, or as its JSON twin where its address ends so."""

    async def answer(request: Request) -> Response:
        explorer = request.app.state.explorer
        view = await run_in_threadpool(make, explorer, request)
        return await run_in_threadpool(_answered, explorer, request, view)

    return answer


def _answered(explorer: Explorer, request: Request, view: View) -> Response:
    headers = {"cache-control": "no-cache"}
    if _is_json(request):
        return JSONResponse(pages.plain(view.facts), view.status, headers)
    to, facts = explorer.links, {**view.facts, **view.more}
    query = f"?{request.url.query}" if request.url.query else ""
    around = {
        "section": view.section,
        "nonce": request.scope[NONCE],
        "here": _path(request) + query,
        "sheets": sheets_of(to, facts),
    }
    said = (view.template, to, pages.network_facts(explorer.atlas), {**around, **facts})
    if not view.streamed:
        return HTMLResponse(drawn(*said), view.status, headers)
    pieces: Iterator[bytes] = (piece.encode() for piece in streamed(*said))
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers |= {"content-encoding": "gzip", "vary": "accept-encoding"}
        pieces = _zipped(pieces)
    return StreamingResponse(pieces, view.status, headers, media_type="text/html")


def _zipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Each piece as soon as it is there; the middleware would wait to pack it tighter."""
    packer = zlib.compressobj(3, wbits=31)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def _said(request: Request, problem: Exception) -> Response:
    """A problem in one sentence, as a page or as JSON."""
    if isinstance(problem, HTTPException):
        status, sentence = problem.status_code, NOTHING.get(problem.status_code, problem.detail)
    else:
        missing = isinstance(problem, pages.Nowhere) or type(problem).__name__ == "Missing"
        status = 404 if missing else 503 if isinstance(problem, Full) else 422
        sentence = str(problem)
    if _is_json(request) or "text/html" not in request.headers.get("accept", "text/html"):
        return JSONResponse({"error": sentence}, status)
    explorer = request.app.state.explorer
    facts = {"status": status, "sentence": sentence, "title": TITLES.get(status, "That did not go")}
    return _answered(explorer, request, View("error.html", "", facts, status=status))


def _broken(request: Request, problem: Exception) -> Response:
    return JSONResponse({"error": "something went wrong in the explorer"}, 500)


NOTHING = {404: "there is nothing at this address", 405: "that cannot be done at this address"}
TITLES = {404: "Not here", 422: "That cannot be read", 503: "Too much at once"}


def _webp(
    request: Request, tag: str | None, content: Callable[[], bytes], *, fixed: bool = False
) -> Response:
    """A picture; one that can never change is asked for only once."""
    headers = {"cache-control": "private, max-age=31536000, immutable" if fixed else "no-cache"}
    if tag is not None:
        headers["etag"] = f'"{tag}"'
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
    return Response(content(), media_type="image/webp", headers=headers)


def _led(request: Request, where: str, facts: dict[str, Any], status: int = 200) -> Response:
    """After a change: on to a page, or for a program what came of it."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(pages.plain(facts) | {"page": where}, status)
    return RedirectResponse(where, 303)


async def _entered(request: Request) -> dict[str, str]:
    """The fields of a form; of a name that comes twice the first counts, as a ticked box does."""
    async with request.form(max_files=0, max_fields=100) as form:
        entered: dict[str, str] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                entered.setdefault(name, value)
        return entered


def _job(found: Job) -> dict[str, Any]:
    facts = pages.plain(found.facts())
    line = facts["error"] or facts["state"]
    if facts["state"] == "running":
        line = f"{facts['what']}: {facts['done']} of {facts['total']}" if facts["total"] else ""
    return facts | {"line": line or "starting", "after": None}


def _visual_form(request: Request) -> dict[str, Any]:
    known = asking.visual()
    name = request.query_params.get("technique", "maximize")
    name = name if name in known else "maximize"
    return _form(known, name, asking.form(known[name], {}, ("batch",)), asking.FIRST)


def _map_form(explorer: Explorer, request: Request, predictions: list[Any]) -> dict[str, Any]:
    known = asking.explaining()
    name = request.query_params.get("method", "saliency")
    name = name if name in known else "saliency"
    patch = "patch" in known[name].options
    without = ("batch", "memory", "engine", *(("patch",) if patch else ()))
    first = predictions[0]["unit"] if predictions else ""
    form = _form(known, name, asking.form(known[name], {}, without), ())
    side = min(explorer.atlas.network["shape"][1:])
    return form | {
        "unit": request.query_params.get("unit", "")[:200] or first,
        "example": first or _example(explorer),
        "occluder": max(1, round(side / 7)) if patch else None,
        "occluder_most": max(1, side // 2),
    }


def _form(known: Any, name: str, fields: list[Any], first: tuple[str, ...]) -> dict[str, Any]:
    return {
        "techniques": list(known),
        "technique": name,
        "summary": asking.summary(known[name]),
        "first": [each for each in fields if each["name"] in first],
        "more": [each for each in fields if each["name"] not in first],
    }


def _example(explorer: Explorer) -> str:
    layers = explorer.atlas.layers
    return explorer.links.unit({"name": layers[0].name}, 0).rpartition("/")[2] if layers else "fc:0"


def _back(found: Job) -> str:
    return "the image" if "image" in found.about else str(found.about["unit"])


def _number(explorer: Explorer) -> int:
    return int(explorer.links.prefix.rpartition("/")[2] or 0)


def _mark(atlas: Any) -> str:
    return str(atlas.network["weights"]).rpartition(":")[2][:8]


def _hex(text: str) -> str:
    if len(text) > 64 or not text or set(text) - set("0123456789abcdef"):
        raise HTTPException(404)
    return text


def _path(request: Request) -> str:
    return request.url.path


def _is_json(request: Request) -> bool:
    return request.url.path.endswith(".json")


def _twins(path: str, make: Callable[[Explorer, Request], View]) -> list[Route]:
    twin = "/index.json" if path == "/" else f"{path}.json"
    return [Route(twin, page(make)), Route(path, page(make))]


ROUTES: list[BaseRoute] = [
    Route("/media/data/{data:int}/{number:int}.webp", data_image),
    Route("/media/image/{ref}.webp", image_media),
    Route("/media/{recipe}/{layer:int}/{unit:int}/{kind}.webp", tile),
    Route("/sheets/{recipe}/{layer:int}/{block:int}.webp", sheet),
    Route("/jobs/{number:int}/events", events),
    Route("/jobs/{number:int}/{name}.webp", job_media),
    Route("/jobs/{number:int}/cancel", cancel, methods=["POST"]),
    Route("/images", send_image, methods=["POST"]),
    Route("/image/{ref}/maps", make_map, methods=["POST"]),
    Route("/notes", keep_note, methods=["POST"]),
    Route("/notes/{key}/remove", remove_note, methods=["POST"]),
    Route("/unit/{address:path}/visualise", visualise, methods=["POST"]),
    *_twins("/", network),
    *_twins("/layer/{name:path}", layer),
    *_twins("/unit/{address:path}", unit),
    *_twins("/images", images),
    *_twins("/image/{ref}", image),
    *_twins("/compare", compare),
    *_twins("/search", search),
    *_twins("/notes", notes),
    *_twins("/jobs", jobs),
    *_twins("/jobs/{number:int}", job),
]
