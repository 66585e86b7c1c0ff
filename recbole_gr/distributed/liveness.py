"""Liveness of a run that spans several machines: one that is cut off, or killed, ends the others.

Each process keeps a connection to rank 0 that carries nothing. The kernels ask each other whether
it still stands, so a process that computes for hours, even without letting Python's threads run, is
never taken for one that is gone. (A timeout of the collectives could not tell these apart.)
"""

import contextlib
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable

import psutil

from recbole_gr.distributed.rendezvous import RENDEZVOUS_TIMEOUT, RankInfo
from recbole_gr.errors import MachineLost

ALLOWANCE = 40  # seconds that a connection may be down
VERDICT = 5.0  # seconds for the news that a process was killed, beside the error of a collective
_PROBES = 6  # unanswered in a row
_GOODBYE = b"."  # from a process that ends by itself, be it with an error
_TOKEN = 16  # bytes, so that nobody else is taken for a process of the run


def master_address(info: RankInfo) -> str:
    """Where rank 0 is: RecBole's key, or what torchrun says."""
    return info.ip or os.environ["MASTER_ADDR"]


def choose_interface(info: RankInfo) -> None:
    """Let gloo use the network interface that leads to rank 0, unless the user has named one.

    Its own choice is the address of the host's name, which is often that of the host itself alone
    (127.0.1.1), where no other machine can reach it.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ or not info.spans_machines:
        return
    with contextlib.suppress(OSError):
        family, kind, _, _, address = socket.getaddrinfo(
            master_address(info), 9, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            own = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            is_own = any(each.address.split("%")[0] == own for each in addresses)
            if is_own and not own.startswith("127.") and own != "::1":
                os.environ["GLOO_SOCKET_IFNAME"] = name


class Liveness:
    """The connections of this process, and the thread that waits for one of them to end.

    Args:
        info (RankInfo): this process.
        broadcast (callable): gives all processes what a function returns on rank 0.
        lost (callable): is called in the thread with a :class:`~recbole_gr.errors.MachineLost`
            where a process is gone without a goodbye.
    """

    def __init__(
        self, info: RankInfo, broadcast: Callable, lost: Callable[[MachineLost], None]
    ) -> None:
        self._info, self._lost, self._closed = info, lost, False
        server: socket.socket | None = None

        def invitation() -> list:
            nonlocal server
            dual = socket.has_dualstack_ipv6()
            server = socket.create_server(
                ("", 0), backlog=info.world_size, dualstack_ipv6=dual,
                family=socket.AF_INET6 if dual else socket.AF_INET,
            )  # fmt: skip
            return [server.getsockname()[1], secrets.token_hex(_TOKEN // 2)]

        port, token = broadcast(invitation)
        timeout = RENDEZVOUS_TIMEOUT.total_seconds()
        if server is None:
            peer = socket.create_connection((master_address(info), port), timeout)
            peer.sendall(token.encode() + info.rank.to_bytes(4, "big"))
            self._peers = {0: peer}
        else:
            with server:
                server.settimeout(timeout)
                self._peers = _accept(server, token.encode(), info.world_size - 1)
        for peer in self._peers.values():
            _probe(peer)
        self._thread = threading.Thread(target=self._wait, name="liveness", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, rank)
            is_cut = False
            while selector.get_map():
                gone = []
                for key, _ in selector.select():
                    try:
                        news = key.fileobj.recv(1)  # type: ignore[union-attr]
                    except OSError as failure:
                        is_cut = is_cut or not isinstance(failure, ConnectionResetError)
                        news = b""
                    selector.unregister(key.fileobj)
                    if not news:
                        gone.append(key.data)
                if self._closed:
                    return
                if gone:
                    error = self._error(gone)
                    error.is_cut = is_cut
                    self._lost(error)
                    return

    def _error(self, gone: list[int]) -> MachineLost:
        here = range(self._info.first_rank, self._info.first_rank + self._info.local_size)
        elsewhere = [rank for rank in gone if rank not in here]
        who = f"rank {', '.join(map(str, sorted(elsewhere or gone)))}"
        if not elsewhere:
            return MachineLost(f"{who} of this machine was ended, or has lost another machine.")
        return MachineLost(
            f"another machine cannot be reached any more ({who}): its processes were killed, or "
            f"the network has been down for {ALLOWANCE} seconds."
        )

    def await_verdict(self) -> None:
        """Wait a moment, in a process that has failed, for the news that another one is gone,
        which is then the cause."""
        self._thread.join(VERDICT)

    def close(self) -> None:
        """Take leave of the others."""
        self._closed = True
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.sendall(_GOODBYE)
                peer.shutdown(socket.SHUT_RDWR)
        self._thread.join(VERDICT)
        for peer in self._peers.values():
            peer.close()


def _accept(server: socket.socket, token: bytes, n_peers: int) -> dict[int, socket.socket]:
    """The connections of the other processes, by rank."""
    peers: dict[int, socket.socket] = {}
    while len(peers) < n_peers:
        peer, _ = server.accept()
        peer.settimeout(server.gettimeout())
        with contextlib.suppress(OSError):
            said = peer.recv(len(token) + 4, socket.MSG_WAITALL)
            if secrets.compare_digest(said[:-4], token):
                peers[int.from_bytes(said[-4:], "big")] = peer
                continue
        peer.close()  # somebody else
    return peers


def _probe(peer: socket.socket) -> None:
    """Let the kernel ask the other end whether it is there."""
    peer.setblocking(True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    every = max(1, ALLOWANCE // (_PROBES + 2))
    values = {
        "TCP_KEEPIDLE": max(1, ALLOWANCE - _PROBES * every),
        "TCP_KEEPINTVL": every,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": ALLOWANCE * 1000,  # milliseconds; of data that were sent
    }
    for name, value in values.items():
        if hasattr(socket, name):  # not on every system
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
