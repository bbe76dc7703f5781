"""What was done in a session, as a Python script that does it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_he2st.core.errors import SessionError
from napari_he2st.core.types import Domains
from napari_he2st.engine.methods import methods

if TYPE_CHECKING:
    from napari_he2st.engine.session import Session
    from napari_he2st.engine.session_items import Result, SlideItem

_HEAD = '''"""Written by napari-he2st {version}: what was done in its window. Run it with ``he2st run {name}``."""

{imports}'''
_FROM = {
    "inside_polygon(": "napari_he2st.core.geometry",
    "grid_of(": "napari_he2st.core.schema",
    "Transform(": "napari_he2st.core.types",
    "square_grid(": "napari_he2st.data.slides.grid",
    "tissue_mask(": "napari_he2st.data.slides.tissue",
    "move(": "napari_he2st.data.truth.fit",
    "write_domains(": "napari_he2st.engine.segment",
}
_ROUND_PX = 2  # decimals of corners in level-0 pixels


@dataclass(frozen=True)
class Script:
    """A script, and what it cannot do again.

    Attributes
    ----------
    text
        Python.
    notes
        In words, each for one thing that was done in the window and is not in the script.
    """

    text: str
    notes: list[str]


def script_of(session: Session, name: str = "script.py") -> Script:
    """The session as a script: slides, results, domains, the last comparison, and each result as h5ad.

    Raises
    ------
    SessionError
        Nothing is open.
    """
    from napari_he2st._version import __version__

    if not session.slides:
        raise SessionError("Nothing is open", todo="Open a slide first")
    slides = {name: f"slide_{i}" for i, name in enumerate(session.slides, 1)}
    results = {name: f"result_{i}" for i, name in enumerate(session.results, 1)}
    notes: list[str] = []
    lines: list[str] = []
    for item in session.slides.values():
        lines += _slide_lines(item, slides[item.name])
    for result in session.results.values():
        variable, slide = results[result.name], slides[result.slide]
        made = list(_result_lines(session, result, variable, slide))
        if not made:
            notes.append(f"{result.name} was not made in this window, so the script does not make it")
            lines.append(f"# {result.name} is not made here: read it from its file")
            continue
        lines += ["", f"# {result.title}", *made]
        for line in _move_lines(session, result, variable, notes):
            lines.append(line)
        if result.name in session.domains:
            lines += _domain_lines(session.domains[result.name], variable, slide, notes)
        lines.append(f'he.export({variable}, "h5ad", {_file_name(result)!r}, slide={slide}, force=True)')
    compared = [results.get(name) for name in session.compared]
    if session.comparison is not None and all(f"{name} = " in "\n".join(lines) for name in compared if name):
        lines += [
            "",
            f"comparison = he.compare({compared[0]}, {compared[1]})",
            'print(comparison.table.sort_values("pcc", ascending=False).head(20))',
        ]
    body = "\n".join(lines) + "\n"
    used = [f"from {module} import {call[:-1]}" for call, module in _FROM.items() if call in body]
    imports = [*(["import numpy as np", ""] if "np." in body else []), "import napari_he2st as he", *used]
    return Script(_HEAD.format(version=__version__, name=name, imports="\n".join(imports)) + "\n" + body, notes)


def _slide_lines(item: SlideItem, variable: str) -> Iterator[str]:
    slide = item.slide
    path = str(slide.path.resolve()) if isinstance(slide.path, Path) else slide.path
    icc = ", icc=False" if slide.profiled is False else ""
    yield f"\n{variable} = he.Slide.open({path!r}, mpp={slide.mpp!r}{icc}, name={item.name!r})"
    options = {} if item.mask is None else item.mask.options
    yield f"tissue_of_{variable} = tissue_mask({_told([variable], options)})"


def _result_lines(session: Session, result: Result, variable: str, slide: str) -> Iterator[str]:
    """How a result was made; nothing where that is not known."""
    if result.made is None:
        return
    told = dict(result.made.told)
    if result.made.function == "read_truth":
        places = [repr(told.pop("path")), repr(told.pop("name"))]
        yield f"{variable} = he.read_truth({_told(places, told)})"
        return
    bundle, regions, pitch_um, spots_of = (told.pop(key) for key in ("bundle", "regions", "pitch_um", "spots_of"))
    if spots_of is not None:
        if spots_of not in session.results:
            return
        yield f"grid = grid_of(result_{list(session.results).index(spots_of) + 1})"
    else:
        yield f"grid = square_grid({slide}, {pitch_um!r}, mask=tissue_of_{slide})"
    if regions is not None:
        yield f"regions = [{', '.join(_array(polygon) for polygon in regions)}]"
        yield "grid = grid.take(np.any([inside_polygon(grid.xy, region) for region in regions], axis=0))"
    given = {key: value for key, value in told.items() if value is not None and value != {}}
    yield f"{variable} = he.predict_slide({_told([repr(bundle), slide, 'grid=grid'], given)})"


def _move_lines(session: Session, result: Result, variable: str, notes: list[str]) -> Iterator[str]:
    """One step from where the spots were when they were read to where they are now."""
    way = session.way_of(result.name)
    if way is None:
        notes.append(f"{result.name} was bent into place by landmarks; the script leaves its spots where they were")
        yield f"# {result.name} was bent into place by hand"
    elif not np.array_equal(way, np.eye(3)):
        yield f'move({variable}, Transform(np.array({way.tolist()})), "as in the window")'


def _domain_lines(domains: Domains, variable: str, slide: str, notes: list[str]) -> Iterator[str]:
    params = dict(domains.params)
    method = params.pop("method", None)
    known = methods("domains")
    if method not in known:
        notes.append(f"Domains of {variable} come from labels, which the script does not read")
        return
    options = {name: params[name] for name in known[method].options if name in params}
    if options.get("resolution") is None:
        options["n_domains"] = params.get("n_domains")
    options["seed"] = params.get("seed", 0)
    if "on" in params:
        options["on"] = params["on"]
    if "inputs" in params or "on" in params:
        places = [variable, repr(method), f"slide={slide}"]
    else:
        places = [variable, repr(method)]
    yield f"write_domains({variable}, he.segment({_told(places, options)}))"
    if domains.names is not None:
        notes.append(f"Domains of {variable} were renamed, merged or split by hand; the script leaves them as found")


def _told(places: list[str], options: dict[str, Any]) -> str:
    return ", ".join([*places, *(f"{name}={_plain(value)!r}" for name, value in options.items())])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _array(polygon: NDArray[np.float64]) -> str:
    return f"np.array({np.round(polygon, _ROUND_PX).tolist()})"


def _file_name(result: Result) -> str:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in result.name)
    return f"{safe}_{result.kind}.h5ad"
