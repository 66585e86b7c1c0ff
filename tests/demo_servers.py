"""Servers of the demo that run in a thread of the test."""

import contextlib
import threading

from recbole_gr.serving.demo_data import Demo
from recbole_gr.serving.demo_server import DemoServer


@contextlib.contextmanager
def running(asked):
    """A server of a recommender on a free port, until the block ends."""
    with DemoServer(Demo(asked)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
