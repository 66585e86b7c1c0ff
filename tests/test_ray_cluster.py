"""Tasks by Ray: each once, wherever it runs; on a real cluster of which a node is killed."""

import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml
from fake_ray import FakeRay
from ray_tasks import HOLD, place, trial
from test_study import here

from recbole_gr.distributed.ray_cluster import on_ray, share
from recbole_gr.errors import ConfigError
from recbole_gr.search.runner import search
from recbole_gr.study.command import main as study_main
from recbole_gr.study.runner import study

HERE = Path(__file__).parent
BEGUN = Path("begun")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A function that puts a fake in the place of Ray."""
    monkeypatch.chdir(tmp_path)

    def fake(**options):
        ray = FakeRay(**options)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return fake


def test_a_task_is_told_what_it_has_of_its_node(fake, tmp_path):
    ray = fake(nodes=[(8, 2), (4, 1), (16, 0)])
    ended = list(on_ray(place, ["a", "b", "c"], tmp_path))
    assert ended == [(name, (name, "3", 4, False), "") for name in "abc"]
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (4, 1)
    assert not ray.up and not list(tmp_path.iterdir())


def test_a_lost_task_is_given_out_again_and_one_that_fails_is_not(fake, tmp_path):
    def task(name, place):
        if name == "bad":
            raise ValueError("no such data\n(a traceback)")
        return name, place.again

    ray = fake(lost={"lost": 2, "gone": 9})
    ended = {name: rest for name, *rest in on_ray(task, ["good", "lost", "gone", "bad"], tmp_path)}
    assert ended["good"] == [("good", False), ""] and ended["lost"] == [("lost", True), ""]
    assert ended["bad"] == [None, "ValueError: no such data"]
    assert ended["gone"] == [None, "lost 3 times by Ray, at last: RayError: its node died"]
    assert sorted(ray.given) == ["bad"] + ["gone"] * 3 + ["good"] + ["lost"] * 3


def test_no_more_than_asked_for_run_at_a_time_and_those_are_told_to_stop(fake, tmp_path):
    ray = fake(hang=("b", "c"))
    ended = on_ray(place, ["a", "b", "c", "d"], tmp_path, most=2)
    assert next(ended)[0] == "a" and ray.given == ["a", "b"]
    ended.close()
    assert ray.cancelled == 1 and ray.given == ["a", "b"] and not ray.up


def test_a_folder_that_a_node_does_not_see_is_an_error(fake, tmp_path, monkeypatch):
    fake()
    monkeypatch.setattr("recbole_gr.distributed.ray_cluster.os.path.isfile", lambda path: False)
    with pytest.raises(ConfigError, match=f"does not see '{tmp_path}' .* storage that they share"):
        list(on_ray(place, ["a"], tmp_path))


def test_without_ray_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install \"recbole_gr\[ray\]\""):
        list(on_ray(place, ["a"], tmp_path))


def test_cores_are_shared_so_that_as_many_tasks_run_as_can():
    for nodes in itertools.product([(1, 0), (3, 0), (8, 0), (0, 0), (4, 2), (3, 9)], repeat=2):
        gpu = any(gpus for _, gpus in nodes)
        able = [(n, gpus if gpu else n) for n, gpus in nodes if n and (gpus or not gpu)]
        for wanted in range(1, 12):
            if not able:
                with pytest.raises(ConfigError, match="No node of the cluster has a core"):
                    share(nodes, wanted)
                continue
            at_once = {
                threads: min(wanted, sum(min(n // threads, most) for n, most in able))
                for threads in range(1, min(n for n, _ in able) + 1)
            }
            best = max(at_once.values())
            expected = max(threads for threads, tasks in at_once.items() if tasks == best)
            assert share(nodes, wanted) == (expected, int(gpu)), (nodes, wanted)


# A cluster of this machine


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose first node runs nothing; this process is connected to that."""
    ray = pytest.importorskip("ray", minversion="2.60", reason="recbole_gr[ray]")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        ray.init(cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def add(cluster):
    """Adds a node, for this test."""
    nodes = []

    def add(**resources):
        nodes.append(cluster.add_node(**resources))
        return nodes[-1]

    yield add
    for node in nodes:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def wait_for(seen):
    last = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < last
        time.sleep(0.05)


def with_a_node_killed(cluster, add, run):
    """What `run` gives on a node that is killed when a task is in the middle there; another one is
    added before."""
    first = add(num_cpus=1)
    HOLD.touch()
    with ThreadPoolExecutor(1) as pool:
        given = pool.submit(run)
        try:
            wait_for(BEGUN.exists)
            add(num_cpus=1)
            cluster.remove_node(first, allow_graceful=False)
            process = int(BEGUN.read_text().split()[1])
            wait_for(lambda: not psutil.pid_exists(process))
        finally:
            HOLD.unlink()
        return given.result()


def figures(name):
    report = json.loads(Path("saved", "studies", name, "report.json").read_text())
    return {key: report["datasets"]["tiny"][key] for key in ("metrics", "differences")}


@pytest.mark.slow
def test_runs_of_a_killed_node_go_on_elsewhere_and_count_once(
    cluster, add, tmp_path, tiny_folder, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    settings = {"epochs": 2, "MAX_ITEM_LIST_LENGTH": 10, "data_path": str(tiny_folder)}
    row = {"model": "ray_tasks:Held", "loss_type": "CE", "hidden_size": 8, "n_layers": 1}
    bad = {"model": "SASRec", "loss_type": "CE", "n_heads": 3}
    file = {"models": {"SASRec": row, "Pop": {}, "bad": bad}, "datasets": ["tiny"],
            "seeds": [1], "settings": settings, "baseline": "SASRec"}  # fmt: skip
    for name in ("alone", "nodes"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    assert len(study("alone.yaml", workers=here)["failed"]) == 1

    caplog.set_level("INFO")

    def run():
        return study_main(["nodes.yaml", "--tool=ray"])

    assert with_a_node_killed(cluster, add, run) == 1
    told = caplog.text
    assert told.count("given out again") == 1
    assert [told.count(f"[{number}/3] ") for number in (1, 2, 3)] == [1] * 3
    assert told.count("failed: ConfigError: SASRec cannot be made") == 1
    logs = [
        path.read_text() for path in Path("saved/studies/nodes/tiny").glob("ray_tasks*/run.log")
    ]
    assert ["Resuming from" in log for log in logs] == [True]
    assert figures("nodes") == figures("alone")
    again = study("nodes.yaml", workers=here)
    assert (again["done"], again["found"], len(again["failed"])) == (0, 2, 1)


@pytest.mark.slow
def test_trials_of_a_killed_node_run_elsewhere_and_count_once(
    cluster, add, tmp_path, tiny_folder, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("hyper.test").write_text("n_layers choice [1,2,3]\n")

    def find(tool):
        settings = {"data_path": str(tiny_folder), "show_progress": False}
        found = search("hyper.test", "SASRec", "tiny", config_dict=settings, objective=trial,
                       tool=tool, output_file=f"{tool}.jsonl")  # fmt: skip
        return [{**record, "seconds": None} for record in found["trials"]]

    alone, ran = find("optuna"), Path("ran")
    ran.unlink()
    found = with_a_node_killed(cluster, add, lambda: find("ray"))
    assert found == alone and [record["status"] for record in found].count("failed") == 1
    assert sorted(ran.read_text().split()) == ["0", "0", "1", "2"]


@pytest.mark.slow
def test_a_task_has_a_gpu_of_its_own(cluster, add, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # RecBole sets it
    add(num_cpus=4, num_gpus=2)
    ended = [given for _, given, _ in on_ray(place, [1, 2, 3], tmp_path)]
    assert {gpu for _, gpu, _, _ in ended} <= {"0", "1"}
    assert sorted(task for task, *_ in ended) == [1, 2, 3]
    assert {(threads, again) for *_, threads, again in ended} == {(2, False)}
