"""What stands behind the pages of one atlas: the network, images, and work that is asked for."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from optogram.pictures.errors import RequestError
from optogram.pictures.lettering import brief
from optogram.web import asking, pages
from optogram.web.jobs import Job, Jobs
from optogram.web.links import Links, address
from optogram.web.safety import Limits
from optogram.web.uploads import Uploads

GREY = (0.299, 0.587, 0.114)  # the luminance of ITU-R BT.601, as Pillow's "L" has it
AT_ONCE = 2
REMEMBERED = 64
UNUSUAL = 1.0  # standard deviations above the mean answer, from where a unit is mentioned


@dataclass(eq=False)
class Explorer:
    """One atlas and what can be asked of its network.

    Args:
        atlas: an opened atlas.
        jobs, uploads: shared by all atlases that are served together.
        links: where its pages are.
        limits: what visitors may ask for.
        source: (name, weights file) of the network, where it is not what the atlas says.
        live: whether notes may be kept and work be asked for.
    """

    atlas: Any
    jobs: Jobs
    uploads: Uploads
    links: Links
    limits: Limits
    source: tuple[str, str | None] | None = None
    live: bool = True
    others: list["Explorer"] = field(default_factory=list)
    _network: Any = None
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _asking: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))
    _looked: "OrderedDict[str, dict[str, Any]]" = field(default_factory=OrderedDict)
    _remembering: threading.Lock = field(default_factory=threading.Lock)

    def network(self) -> Any:
        """The network itself, loaded when it is first asked.

        Raises RequestError where it is not there, has other weights now, or would run somebody
        else's code.
        """
        with self._loading:
            if self._network is None:
                self._network = self._loaded()
            return self._network

    def _loaded(self) -> Any:
        from optogram.zoo import load

        about = self.atlas.network
        name, file = self.source or (about["name"], about.get("file"))
        if self.source is None and ".py:" in name:
            raise RequestError(
                f"the network {name!r} is code in a file: to run it, serve with --network {name}"
            )
        network = load(name, weights=file)
        if network.fingerprint != about["weights"]:
            raise RequestError(f"{name!r} has other weights now than when this atlas was built")
        network.layers  # noqa: B018 - found now, while nobody else asks
        return network

    def webp(self, ref: str) -> bytes:
        """An image as the network is shown it. Raises RequestError for one that is not there."""
        if data := _numbers(ref):
            return self.atlas.image(self._data(data[0]).id, data[1])
        from optogram.pictures.drawing import as_pil
        from optogram.pictures.saving import webp_bytes

        return webp_bytes(as_pil(self.image(ref)))

    def image(self, ref: str) -> Any:
        """An image as a tensor (channel, height, width) in [0, 1], fitted to the network."""
        from optogram.pictures.files import image as read
        from optogram.survey.datasets import fit

        shape = tuple(self.atlas.network["shape"])
        whole = read(self.webp(ref) if _numbers(ref) else self.uploads[ref].content)
        if shape[0] == 1 and len(whole) == 3:
            weights = whole.new_tensor(GREY)
            whole = (whole * weights[:, None, None]).sum(0, keepdim=True)
        elif shape[0] == 3 and len(whole) == 1:
            whole = whole.expand(3, -1, -1)
        return fit(whole.contiguous(), shape)

    def looked_at(self, ref: str) -> dict[str, Any]:
        """What the network says to an image, and which units it excites unusually."""
        with self._remembering:
            if ref in self._looked:
                return self._looked[ref]
        network, image = self.network(), self.image(ref)
        with self._asking:
            found: dict[str, Any] = {"predictions": _predictions(network, image)}
            rows = self.atlas.unusual(network, image, n=16)
            found["unusual"] = [list(row) for row in rows if row[3] >= UNUSUAL]
        with self._remembering:
            self._looked[ref] = found
            while len(self._looked) > REMEMBERED:
                self._looked.popitem(last=False)
        return found

    def named(self, ref: str) -> dict[str, Any]:
        """What an image is called, where it is from, and the images beside it."""
        if not (data := _numbers(ref)):
            upload = self.uploads[ref]
            about = f"sent by you: {upload.width} × {upload.height} pixels"
            return {"name": upload.name or "an image", "about": about} | {
                "previous": None,
                "next": None,
            }
        held, number = self._data(data[0]), data[1]
        if number >= held.images:
            raise pages.Nowhere(f"{held.name} has images 0 to {held.images - 1}")
        return {
            "name": f"image {number}",
            "about": f"of {held.name}, {held.split}",
            "previous": f"{data[0]}-{number - 1}" if number else None,
            "next": f"{data[0]}-{number + 1}" if number + 1 < held.images else None,
        }

    def visualise(self, layer: Any, unit: int, entered: Mapping[str, str]) -> Job:
        """Have a picture made for a unit and kept in the atlas."""
        known = asking.visual()
        name = entered.get("technique") or "maximize"
        if name not in known:
            raise RequestError(f"{pages.shown(name)} makes no picture of a unit")
        options = asking.arguments(known[name], entered)
        self._may_work()
        place = address({"name": layer.name}, unit)

        def work(job: Job) -> dict[str, Any]:
            from optogram.core.technique import call

            network, target = self.network(), self.atlas.target(layer.id, unit)
            made = call(name, network=network, unit=target, **options)
            kept = self.atlas.keep(layer.id, unit, made)
            first = made if hasattr(made, "verdict") else made[0]
            facts = [("score", brief(first.score)), ("verdict", first.verdict or "none")]
            return {"facts": facts, "kept": kept.id, "recipe": pages.plain(made.recipe)}

        about: dict[str, Any] = {"page": self.links.unit({"name": layer.name}, unit), "unit": place}
        about |= {"settings": {"technique": name} | _said(options), "atlas": self.links.prefix}
        return self.jobs.start(f"{name.replace('_', ' ')} {place}", about, work)

    def map(self, ref: str, entered: Mapping[str, str]) -> Job:
        """Have a map made of what in an image mattered to a unit."""
        known = asking.explaining()
        name = entered.get("technique") or "saliency"
        if name not in known:
            raise RequestError(f"{pages.shown(name)} makes no map of an image")
        wanted = entered.get("unit", "").strip()[:200]
        if not wanted:
            raise RequestError("a map is about a unit: name one, as in output:3")
        options = asking.arguments(known[name], entered)
        self._may_work()
        checks = entered.get("checks") == "true"
        image = self.image(ref)  # now: an upload may be gone when its turn comes

        def work(job: Job) -> dict[str, Any]:
            return _map(self.network(), name, image, wanted, options, checks, job)

        about: dict[str, Any] = {"page": self.links.image(ref), "image": ref, "unit": wanted}
        about |= {"settings": {"technique": name, "unit": wanted} | _said(options)}
        about["atlas"] = self.links.prefix
        return self.jobs.start(f"{name.replace('_', ' ')} for {wanted}", about, work)

    def about_page(self, page: str) -> list[Job]:
        """The jobs that a page asked for, the newest first."""
        return [job for job in self.jobs if job.about.get("page") == page]

    def _may_work(self) -> None:
        if not self.live:
            raise RequestError("this explorer only shows: it was started with --read-only")

    def _data(self, number: int) -> Any:
        if number >= len(self.atlas.datasets):
            raise pages.Nowhere(f"there is no data set {number} in this atlas")
        return self.atlas.datasets[number]


def _map(
    network: Any,
    name: str,
    image: Any,
    unit: str,
    options: Mapping[str, Any],
    checks: bool,
    job: Job,
) -> dict[str, Any]:
    from optogram.core.technique import call
    from optogram.core.trust import trust
    from optogram.pictures import Attribution, Sheet

    found = network.units(unit)
    if len(found) != 1:
        raise RequestError(f"{unit!r} names {len(found)} units; a map is about one")
    target = found[0]

    def explained(asked: Any, shown: Any, about: Any) -> Any:
        made = call(name, network=asked, image=shown, unit=about, **options)
        made = made[0] if isinstance(made, Sheet) else made
        if not isinstance(made, Attribution):
            raise RequestError(f"{name} makes no map of an image")
        return made

    made = explained(network, image, target)
    facts: dict[str, Any] = dict(made.checks or {})
    if checks:
        facts |= trust(explained, network, made, target).facts()
    from dataclasses import replace

    made = replace(made, checks=facts or None)
    job.media = _drawn(made)
    badge = facts.get("randomisation", {}).get("badge")
    limit = made.limit
    return {
        "facts": [
            ("score", brief(made.score)),
            *((n, _text(v)) for n, v in made.findings().items()),
        ],
        "map": {
            "technique": name.replace("_", " "),
            "unit": unit,
            "score": made.score,
            "unit_of_values": made.unit_of_values,
            "low": brief(float(made.values.min())),
            "high": brief(float(made.values.max())),
            "ticks": [brief(-limit), "0", brief(limit)] if made.signed else ["0", brief(limit)],
            "badge": badge,
            "badge_says": SAYS.get(badge, ""),
            "findings": [(n, _text(v)) for n, v in made.findings().items()],
        },
        "recipe": pages.plain(made.recipe),
    }


SAYS = {
    "pass": "depends on what was learned",
    "weak": "depends on it only weakly",
    "fail": "hardly depends on what was learned",
    "unknown": "cannot be checked",
}


def _drawn(made: Any) -> dict[str, bytes]:
    """The map over its image, large enough to look at, and the colours of its bar."""
    import numpy as np
    from PIL import Image

    from optogram.pictures.colour import magnitude, signed
    from optogram.pictures.drawing import as_pil, enlarged, laid_over
    from optogram.pictures.saving import webp_bytes

    over = laid_over(made, enlarged(as_pil(made.image)))
    limit = made.limit
    ramp = np.linspace(-limit if made.signed else 0, limit, 256)[None].repeat(2, 0)
    bar = (signed if made.signed else magnitude)(ramp, limit or None, made.floor)
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(bar)).save(file, "WEBP", lossless=True)
    return {"over": webp_bytes(over), "bar": file.getvalue()}


def _predictions(network: Any, image: Any, n: int = 5) -> list[dict[str, Any]]:
    """The network's most probable outputs; none where it has no vector of them."""
    import torch

    if len(network.layer("output").shape) != 1:
        return []
    with torch.no_grad():
        answer = network(image[None])[0].float().cpu()
    best = answer.softmax(0).topk(min(n, len(answer)))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        {"unit": f"output:{i}", "name": network.label(i), "value": p, "text": f"{100 * p:.1f}%"}
        for i, p in rows
    ]


def _numbers(ref: str) -> tuple[int, int] | None:
    """The numbers of a data set and of an image in it; None for the key of an upload."""
    data, dash, number = ref.partition("-")
    if not dash:
        return None
    return pages.whole(data, "a data set"), pages.whole(number, "an image")


def _said(options: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value)[:200] for name, value in options.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else brief(value)
