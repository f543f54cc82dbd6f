"""The Ray engine on a cluster of two nodes (on this machine), of which one goes away."""

import pytest

pytest.importorskip("ray", reason='Ray is not installed; pip install "yolo-farm[ray]"')

import farm
from farm.api import Hooks
from tests.support.engines import config, rows, sound
from tests.support.harness import pictures

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_a_node_that_goes_away_costs_time_and_no_row(cluster, tmp_path):
    import ray

    node = cluster.add_node(num_cpus=1)
    source = pictures(tmp_path / "images", 300)
    hosts = []

    def look(snapshot):
        if snapshot.committed > 40 and len(snapshot.workers) == 2 and not hosts:
            hosts.append(len(snapshot.workers))
            cluster.remove_node(node, allow_graceful=False)

    values = config(source, tmp_path / "run", model={"sleep_ms": 50}, commit={"images": 16})
    values |= {"ray": cluster.address, "workers": {"devices": "cpu"}}
    summary = farm.run(values, hooks=Hooks(on_snapshot=look))
    assert hosts == [2], "both nodes were at work"
    assert (summary.ok, summary.failed) == (300, 0)
    assert not ray.is_initialized(), "farm leaves a cluster that it did not start"
    farm.run(config(source, tmp_path / "local", "local"))
    assert sound(tmp_path / "run") == rows(tmp_path / "local")


def test_a_node_whose_device_is_dead_stops_nobody(cluster, tmp_path):
    """Its worker cannot start; the other node labels everything, and the user is told why."""
    cluster.add_node(num_cpus=1)
    source = pictures(tmp_path / "images", 240)
    notes = []
    values = config(source, tmp_path / "run", commit={"images": 16})
    values["model"] = {
        "factory": "tests.support.engines:one_broken",
        "args": {"flag": str(tmp_path / "flag"), "sleep_ms": 40},
    }
    values |= {"ray": cluster.address, "workers": {"devices": "cpu"}}
    summary = farm.run(values, hooks=Hooks(on_note=notes.append))
    assert (summary.ok, summary.failed) == (240, 0)
    assert [note for note in notes if "going on without worker" in note and "the device is on fire" in note]
    sound(tmp_path / "run")
