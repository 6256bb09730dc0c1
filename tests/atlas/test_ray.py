"""The Ray engine on two nodes of a cluster that is simulated on this machine."""

import os
import threading
import time
from pathlib import Path

import pytest

from optogram.atlas.engines import Ray, Work
from optogram.pictures.errors import RequestError

pytestmark = [
    pytest.mark.slow,
    # Ray opens sockets and files of its own that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROOT = Path(__file__).parent.parent.parent
CHORE = "tests.atlas.chores:chore"


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A head without CPUs for work and two nodes with one each; a token guards it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-token-of-this-test-alone-0123456789")
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        made.wait_for_nodes()
        yield made, nodes
    finally:
        ray.shutdown()
        made.shutdown()


def made_in(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.txt"))


def test_nodes_share_the_work_and_a_lost_node_loses_at_most_its_piece(cluster, tmp_path):
    head, nodes = cluster
    work = Work(CHORE, {"folder": str(tmp_path), "count": 12, "pause": 0.3})

    def lose_one():
        for _ in range(600):
            if len(made_in(tmp_path)) >= 3:
                break
            time.sleep(0.05)
        head.remove_node(nodes[1], allow_graceful=False)

    saboteur = threading.Thread(target=lose_one)
    saboteur.start()
    Ray(head.address, workers=2).run(work, lambda: len(made_in(tmp_path)))
    saboteur.join()
    assert made_in(tmp_path) == list(range(12))
    begun = [path.name.split(".")[0] for path in tmp_path.glob("*.begun-*")]
    assert len(begun) <= 13, "more than the lost worker's piece was begun twice"


def test_an_atlas_is_the_one_of_one_program_though_a_node_is_lost(cluster, tmp_path):
    import optogram as og
    from optogram.atlas import verify
    from optogram.atlas.store import markers

    head, nodes = cluster
    asked = {"layers": ["fc6", "fc7", "fc8"], "pictures": [], "split": "test"}
    asked["recipes"] = [{"name": "short", "arguments": {"steps": 4}}]
    alone = og.atlas.build("mnist-mlp", "digits", tmp_path / "alone", **asked)
    found = {}

    def lose_one():
        for _ in range(6000):
            found.update({str(m.path): m.path.stat().st_mtime_ns for m in markers(tmp_path / "a")})
            if len(found) >= 3:
                break
            time.sleep(0.05)
        head.remove_node(nodes[1], allow_graceful=False)

    saboteur = threading.Thread(target=lose_one)
    saboteur.start()
    made = og.atlas.build(
        "mnist-mlp", "digits", tmp_path / "a",
        engine="ray", address=head.address, workers=2, **asked,
    )  # fmt: skip
    saboteur.join()
    assert found
    assert made.manifest == alone.manifest
    again = {str(m.path): m.path.stat().st_mtime_ns for m in markers(tmp_path / "a")}
    assert {path: again[path] for path in found} == found, "a finished shard was made again"
    assert verify(tmp_path / "a").clean


def test_what_a_worker_on_a_node_refuses_is_said_in_its_words(cluster, tmp_path):
    head, _ = cluster
    work = Work(CHORE, {"folder": str(tmp_path), "count": 1, "refuse": "no such layer"})
    with pytest.raises(RequestError, match=r"^no such layer$"):
        Ray(head.address, workers=2).run(work, lambda: 0)
