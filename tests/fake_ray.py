"""The part of Ray that is used, in this process: for tests where it is not installed."""

import types
from concurrent.futures import Future


class RayError(Exception):
    """A node or worker died."""


class RayTaskError(RayError):
    """The task itself raised `cause`."""

    def __init__(self, cause):
        super().__init__(f"a task failed: {cause}")
        self.cause = cause


class Reference:
    """A task that was given out; it runs at once, unless `lost` says that its node dies then."""

    def __init__(self, ray, function, args):
        self.ray, self._future = ray, Future()
        ray.given.append(args[1])
        if any(args[1] is task for task in ray.hang):
            return
        if ray.dies(args[1]):
            self._future.set_exception(RayError("its node died\nin many lines"))
            return
        try:
            self._future.set_result(function(*args))
        except Exception as error:
            self._future.set_exception(RayTaskError(error))

    def future(self):
        return self._future


class FakeRay(types.ModuleType):
    """A cluster of nodes of so many cores and GPUs.

    Attributes:
        lost: how often the node of a task dies, by task.
        hang: tasks that run until they are cancelled.
        given: tasks that were given out, in order; `cancelled`: how many were.
        options: of the tasks.
    """

    def __init__(self, nodes=((2, 0),), lost=None, hang=()):
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self._nodes, self.lost, self.hang = nodes, dict(lost or {}), hang
        self.given, self.cancelled, self.options, self.up = [], 0, {}, False

    def dies(self, task):
        """Whether its node dies, this time."""
        if not self.lost or not self.lost.get(task):
            return False
        self.lost[task] -= 1
        return True

    def is_initialized(self):
        return False

    def init(self, **_):
        self.up = True

    def shutdown(self):
        self.up = False

    def nodes(self):
        dead = {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}}
        return [
            *({"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in self._nodes),
            dead,
        ]

    def get_gpu_ids(self):
        return [3] if self.options["num_gpus"] else []

    def remote(self, **options):
        self.options = options

        def remote(function):
            return types.SimpleNamespace(remote=lambda *args: Reference(self, function, args))

        return remote

    def cancel(self, reference):
        self.cancelled += 1
        reference._future.set_exception(RayError("cancelled"))
