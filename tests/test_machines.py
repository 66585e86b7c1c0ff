"""Machines: network namespaces that train together, are cut apart, or lose a process."""

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from runs import RUNS, arguments
from tiny import write_tiny_dataset

from recbole_gr import run_recbole_gr
from recbole_gr.distributed import liveness
from recbole_gr.distributed.rendezvous import RankInfo

TESTS = Path(__file__).parent
ALLOWANCE = 8  # seconds
DEADLINE = 120.0
ADDRESSES = ("10.99.83.1", "10.99.83.2")
STARTS = ("keys", "torchrun")
LOSSLESS = {"dropout": 0, "learner": "sgd", "learning_rate": 0.3}
MODELS = {
    "TIGER": {**RUNS["TIGER"][1], **LOSSLESS, "epochs": 2},
    "SASRec": {**RUNS["SASRec"][1], "epochs": 2, "hidden_dropout_prob": 0,
               "attn_dropout_prob": 0, "learner": "sgd", "learning_rate": 0.3},
}  # fmt: skip


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=True)


class Machines:
    """Two namespaces with a cable, and the processes in them."""

    def __init__(self, folder):
        self.folder, self.running, self.log = folder, [], []
        self.names = [f"rgr{os.getpid()}{side}" for side in "ab"]
        self.cable = [f"rg{os.getpid()}{side}" for side in "ab"]

    def plug(self):
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.cable[0], "netns", self.names[0], "type", "veth",
           "peer", "name", self.cable[1], "netns", self.names[1])  # fmt: skip
        for name, end, address in zip(self.names, self.cable, ADDRESSES):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def start(self, how, command, name=""):
        """The same command on both; `how` is RecBole's keys or torchrun."""
        program = str(TESTS / "netns_machine.py")
        paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "TEST_ALLOWANCE": str(ALLOWANCE), "PYTHONPATH": paths}
        for side, namespace in enumerate(self.names):
            place = self.folder / f"{how}{name}{side}"
            place.mkdir()
            own = [sys.executable, program, *command, "--nproc=1", "--world_size=2",
                   f"--ip={ADDRESSES[0]}", f"--group_offset={side}"]  # fmt: skip
            if how == "torchrun":
                own = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
                       "--nproc_per_node=1", "--rdzv_backend=c10d",
                       f"--rdzv_endpoint={ADDRESSES[0]}:5679",
                       f"--rdzv_conf=is_host={1 - side}", f"--local_addr={ADDRESSES[side]}",
                       program, *command]  # fmt: skip
            self.log.append(place / "output")
            with open(self.log[-1], "wb") as output:
                self.running.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", namespace, *own],
                        cwd=place,
                        env=env,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )  # fmt: skip
                )
        return [log.parent for log in self.log]

    def output(self, side):
        return self.log[side].read_text(errors="replace")

    def until(self, event):
        """Wait for an event, which the run must reach before it ends."""
        give_up = time.monotonic() + DEADLINE
        while not event():
            running = all(process.poll() is None for process in self.running)
            assert running and time.monotonic() < give_up, self.output(0) + self.output(1)
            time.sleep(0.05)

    def codes(self):
        """The exit codes of both sides, which must end within the deadline."""
        return [process.wait(DEADLINE) for process in self.running]

    def kill(self, side):
        """Kill all processes of one side; torchrun's workers are in sessions of their own."""
        with contextlib.suppress(subprocess.CalledProcessError):
            for number in ip("netns", "pids", self.names[side]).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)

    def remove(self):
        for side, name in enumerate(self.names):
            self.kill(side)
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)
        for process in self.running:
            process.wait(DEADLINE)


@pytest.fixture
def machines(tmp_path):
    both = Machines(tmp_path)
    try:
        try:
            both.plug()
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            pytest.skip(f"no network namespaces here: {reason}")
        yield both
    finally:
        with contextlib.suppress(OSError):  # there is no `ip`
            both.remove()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("machines"))


@pytest.mark.slow
@pytest.mark.parametrize("how", STARTS)
def test_a_cut_ends_both_machines_with_a_message(how, machines, data):
    command = arguments("TIGER", data, **{**MODELS["TIGER"], "epochs": 100000,
                                          "stopping_step": 100000})  # fmt: skip
    machines.start(how, command)
    machines.until(lambda: re.search(r"Epoch 2:", machines.output(0)))
    ip("-n", machines.names[0], "link", "set", machines.cable[0], "down")
    assert all(machines.codes())
    for side in (0, 1):
        lost = rf"error: another machine cannot be reached any more \(rank {1 - side}\): .*"
        assert re.search(lost + r"--resume=\S+\.pth goes on from", machines.output(side))
        assert "third_party/gloo" not in machines.output(side)


@pytest.mark.slow
def test_a_machine_whose_processes_are_killed_ends_the_other(machines, data):
    command = arguments("TIGER", data, **{**MODELS["TIGER"], "epochs": 100000,
                                          "stopping_step": 100000})  # fmt: skip
    machines.start("keys", command)
    machines.until(lambda: re.search(r"Epoch 2:", machines.output(0)))
    machines.kill(1)
    assert machines.running[0].wait(DEADLINE) == 1
    lost = r"error: another machine cannot be reached any more \(rank 1\): .*--resume=\S+ goes on"
    assert re.search(lost, machines.output(0))


@pytest.mark.slow
@pytest.mark.parametrize("how", STARTS)
def test_two_machines_find_the_metrics_of_one_process(how, machines, data, tmp_path, monkeypatch):
    place = tmp_path / "one"
    place.mkdir()
    monkeypatch.chdir(place)
    models = MODELS if how == "keys" else {"SASRec": MODELS["SASRec"]}
    for name, settings in models.items():
        expected = run_recbole_gr(cmd_args=arguments(name, data, **settings))
        machines.running, machines.log = [], []
        folder = machines.start(how, arguments(name, data, **settings), name)[0]
        assert machines.codes() == [0, 0], machines.output(0) + machines.output(1)
        (file,) = folder.glob("results/*/results.json")
        (found,) = json.loads(file.read_text())
        for key in ("best_valid_result", "test_result"):
            assert found[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-3)


def test_gloo_is_left_to_itself_on_one_machine_and_where_the_user_has_chosen(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    liveness.choose_interface(RankInfo(0, 2, 0, "localhost", 5678))
    liveness.choose_interface(RankInfo(0, 2, 0, "localhost", 5678, None, 1))  # two on the loopback
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def lost_of(other, is_goodbye):
    """What a process of rank 0 is told of another that goes."""
    lost = []
    met = queue.Queue()
    first = RankInfo(0, 2, 0, "localhost", 1, None, 1)
    second = RankInfo(1, 2, 0, "localhost", 1, None, 1)

    def joins():
        process = liveness.Liveness(second, lambda _: met.get(), other.append)
        if is_goodbye:
            process.close()
        else:
            process._closed = True
            process._peers[0].shutdown(socket.SHUT_RDWR)

    def invites(make):
        met.put(invitation := make())
        return invitation

    thread = threading.Thread(target=joins)
    thread.start()
    process = liveness.Liveness(first, invites, lost.append)
    thread.join()
    process.await_verdict()
    process.close()
    return lost


def test_a_process_that_takes_leave_is_not_lost():
    assert lost_of([], is_goodbye=True) == []
    (error,) = lost_of([], is_goodbye=False)
    assert str(error).startswith("another machine cannot be reached any more (rank 1)")
