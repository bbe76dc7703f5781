"""STalign: rasters, affine map of landmarks, registrations in the plane and of a plane in space."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.fill import inputs_of

from napari_he2st.zoo.alignment import stalign
from napari_he2st.zoo.alignment.stalign import Sigmas, rasterize, register

INFERENCE = False


def run(case: dict) -> dict:
    x = {name: value.numpy() for name, value in inputs_of(case).items()}
    return _volume(case, x) if "blobs" in x else _plane(case, x)


def _options(config: dict) -> dict:
    sigmas = {ours: config[f"sigma{theirs}"] for ours, theirs in _SIGMAS.items() if f"sigma{theirs}" in config}
    return {
        "smoothness": config["a"],
        "power": config["p"],
        "expand": config["expand"],
        "times": config["nt"],
        "step_sizes": {"linear": config["epL"], "shift": config["epT"], "flow": config["epV"]},
        "sigmas": Sigmas(**sigmas),
    }


_SIGMAS = {"match": "M", "background": "B", "artefact": "A", "flow": "R", "points": "P"}


def _plane(case: dict, x: dict) -> dict:
    config = case["config"]
    dx = config["dx"]
    a, b, counts = x["cells"].T, x["cells2"].T, x["counts"]
    X, Y, single = rasterize(*a, dx=dx)
    out = {
        "raster_single": single,
        "raster_X": X,
        "raster_Y": Y,
        "raster_multi": rasterize(*a, dx=dx, blur=(2, 1, 0.5))[2],
        "raster_legacy": rasterize(*a, dx=dx, windowed=False)[2],
        "raster_wavelet": rasterize(*a, dx=dx, blur=(2, 1), wavelet=True)[2],
        "raster_weighted": rasterize(*a, counts, dx=dx)[2],
        "normalize": stalign.normalise(counts),
    }
    out["L"], out["T"] = stalign.affine_from_points(x["ptsI"], x["ptsJ"])
    sources = []
    for cells in (a, b):
        columns, rows, image = rasterize(*cells, dx=dx, blur=(1.5,))
        sources.append(
            ([torch.from_numpy(rows), torch.from_numpy(columns)], torch.from_numpy(stalign.normalise(image)))
        )
    (axes, image), (target_axes, J) = sources
    target = torch.cat([J, J / 2, J**2])
    start = {"linear": out["L"], "shift": out["T"]}
    landmarks = {"points": torch.from_numpy(x["ptsI"]), "target_points": torch.from_numpy(x["ptsJ"])}
    runs = {
        "a": {"steps": range(1)},
        "b": {"steps": range(60), "diffeo_start": 10, **start},
        "c": {"steps": range(60), **start, **landmarks},
    }
    flow = None
    for name, options in runs.items():
        flow = register(axes, image, target_axes, target, **options, **_options(config))
        v = flow.velocity
        out[f"A_{name}"], out[f"WM_{name}"] = flow.affine, flow.weights[0][::3, ::3]
        out[f"v_{name}"] = v[:, ::3, ::3] if v.numel() > 4000 else v
        out |= {"xv0": flow.axes[0], "xv1": flow.axes[1]}
    forward = flow.forward(landmarks["points"])
    error = (forward - landmarks["target_points"]).norm(dim=1).numpy()
    out |= {"pts_fwd": forward, "pts_back": flow.backward(landmarks["target_points"])}
    out |= {"img": flow.pull(axes, image, target_axes)[:, ::3, ::3], "tre": np.array([error.mean(), error.std()])}
    return out


def _volume(case: dict, x: dict) -> dict:
    blobs = x["blobs"]

    def density(z: np.ndarray, y: np.ndarray, xx: np.ndarray) -> np.ndarray:
        return sum(
            amplitude * np.exp(-((z - bz) ** 2 + (y - by) ** 2 + (xx - bx) ** 2) / (2 * sigma**2))
            for bz, by, bx, sigma, amplitude in blobs
        )

    axes = [100.0 * np.arange(n) for n in (8, 14, 16)]
    volume = density(*np.meshgrid(*axes, indexing="ij"))[None]
    target_axes = [np.zeros(1), 110.0 * np.arange(12), 115.0 * np.arange(13)]
    Y, X = np.meshgrid(*target_axes[1:], indexing="ij")
    yy = np.cos(0.2) * (Y - 600) - np.sin(0.2) * (X - 700) + 660
    xx = np.sin(0.2) * (Y - 600) + np.cos(0.2) * (X - 700) + 720
    plane = density(np.full_like(yy, 380.0), yy, xx)
    target = torch.from_numpy(np.stack([plane, plane**2])[:, None])
    tensors = [torch.from_numpy(a) for a in axes], torch.from_numpy(volume), [torch.from_numpy(a) for a in target_axes]
    out: dict = {"I_mid": volume[0, 4], "J": target[:, 0]}
    shift = np.array([-350.0, 0, 0])
    for name, options in {"a": {"steps": range(1)}, "b": {"steps": range(55), "diffeo_start": 5}}.items():
        flow = register(*tensors, target, shift=shift, **options, **_options(case["config"]))
        out |= {f"A_{name}": flow.affine, f"v_{name}": flow.velocity[:, ::2, ::2, ::2]}
        out |= {f"xv{i}": axis for i, axis in enumerate(flow.axes)}
    return out
