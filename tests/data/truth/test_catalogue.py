"""The catalogue of public data sets, and downloads that are cut off, damaged or go on."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from napari_he2st.core.errors import TruthError, UnknownNameError
from napari_he2st.core.progress import Control
from napari_he2st.data.truth import TRUTH_READERS, read_section
from napari_he2st.data.truth.catalogue import Dataset, RemoteFile, catalogue, dataset, sha256_of

CONTENT = bytes(range(256)) * 5000
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SETS = {
    "MOB", "cSCC", "Breast-ST", "DLPFC", "HER2", "Human-Kidney", "Human-CCS", "Breast-HD", "BC1-BC2", "Breast-Xenium",
    "CRC-ST", "SpatialTME", "HEST-1k", "STImage-1K4M", "Mouse-Brain-Xenium", "OmiCLIP-ST", "CRC-HD",
}  # fmt: skip


class Server(BaseHTTPRequestHandler):
    """Serves :data:`CONTENT`; resumes where it is asked to, and can stop in the middle."""

    asked: list[str | None] = []
    resumes, stops_at = True, len(CONTENT)

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        Server.asked.append(start)
        at = int(start.removeprefix("bytes=").removesuffix("-")) if start and Server.resumes else 0
        self.send_response(206 if at else 200)
        self.send_header("Content-Length", str(len(CONTENT) - at))
        self.end_headers()
        self.wfile.write(CONTENT[at : Server.stops_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HE2ST_DATASETS", str(tmp_path / "sets"))
    Server.asked, Server.resumes, Server.stops_at = [], True, len(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def one(url, *, path="a/counts.tsv", sha256=SHA256, size=SIZE):
    file = RemoteFile(path, url, size, sha256)
    facts = dict.fromkeys(("organ", "species", "technology", "resolution", "citation"), "x")
    return Dataset(
        "Mini", "Mini set", layout="legacy_st", address="https://x", place="All in one.", files=(file,), **facts
    )


def test_all_seventeen_sets_are_described():
    assert set(catalogue()) == SETS
    for entry in catalogue().values():
        assert entry.layout in TRUTH_READERS.names()
        assert entry.address.startswith("https://")
        assert entry.citation
        assert entry.place.endswith(".")
        for file in entry.files:
            assert len(file.sha256) == 64
            assert file.url.startswith("https://")
    assert dataset("her2").slides == 36
    with pytest.raises(UnknownNameError, match="HEST-1k"):
        dataset("hest1k")


def test_download_with_progress_and_checksum(server):
    control = Control()
    target = one(server).fetch(control)[0]
    assert target.read_bytes() == CONTENT
    assert control.done == control.total == len(CONTENT)
    one(server).fetch(Control())
    assert len(Server.asked) == 1, "what is here is not downloaded again"


@pytest.mark.parametrize("resumes", [True, False])
def test_a_download_that_was_cut_off_goes_on(server, resumes):
    Server.stops_at = 500_000
    with pytest.raises(TruthError, match=r"checksum|cannot be downloaded"):
        one(server, sha256=SHA256).fetch(Control())
    part = one(server).folder / "a/.counts.tsv.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(CONTENT[:500_000])
    Server.stops_at, Server.resumes = len(CONTENT), resumes
    assert one(server).fetch(Control())[0].read_bytes() == CONTENT
    assert Server.asked[-1] == "bytes=500000-"


def test_another_content_is_not_kept(server):
    with pytest.raises(TruthError, match="checksum"):
        one(server, sha256="0" * 64).fetch(Control())
    assert not list((one(server).folder / "a").iterdir())


def test_more_than_declared_is_refused(server):
    with pytest.raises(TruthError, match="more than the file has"):
        one(server, size=1000).fetch(Control())


def test_no_net_says_where_to_put_the_file(server):
    with pytest.raises(TruthError, match=r"cannot be downloaded.*by hand"):
        one("http://127.0.0.1:9").fetch(Control())


def test_a_path_that_leaves_the_folder_is_refused(server):
    with pytest.raises(TruthError, match="leave its folder"):
        one(server, path="../../evil").fetch(Control())
    with pytest.raises(TruthError, match="https only"):
        one("ftp://x/y").fetch(Control())


def test_a_set_that_is_not_here_says_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HE2ST_DATASETS", str(tmp_path))
    with pytest.raises(TruthError, match=r"not on this machine.*by hand.*metadata/ID.json"):
        dataset("HEST-1k").detect()
    with pytest.raises(TruthError, match="no open address"):
        dataset("HEST-1k").fetch(Control())
    with pytest.raises(TruthError, match=r"No file of .* is called"):
        dataset("HER2").fetch(Control(), only="*Z9*")


def test_files_put_by_hand_are_loaded(monkeypatch, tmp_path, legacy):
    root = legacy(by_kind=True)
    monkeypatch.setenv("HE2ST_DATASETS", str(tmp_path / "sets"))
    (tmp_path / "sets").mkdir()
    root.rename(dataset("HER2").folder)
    assert dataset("HER2").detect().sections == ["B2"]
    assert read_section(dataset("HER2").folder).adata.n_obs == 20


@pytest.mark.needs_data
@pytest.mark.parametrize(("name", "folder"), [("HER2", "her2st"), ("MOB", "st_mouse_olfactory_bulb_2k")])
def test_the_listed_files_are_those_of_the_set(he2st_data, monkeypatch, tmp_path, name, folder):
    monkeypatch.setenv("HE2ST_DATASETS", str(tmp_path))
    (tmp_path / name).symlink_to(he2st_data / folder)
    chosen = dataset(name)
    small = [file for file in chosen.files if file.bytes < 100_000]
    assert len(small) >= 3
    for file in small:
        path = he2st_data / folder / file.path
        assert (path.stat().st_size, sha256_of(path)) == (file.bytes, file.sha256)
    assert chosen.detect().layout == "legacy_st"
