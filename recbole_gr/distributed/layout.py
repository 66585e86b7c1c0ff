"""The layout of a run's processes over machines, from RecBole's keys."""

from typing import Any, NamedTuple

from recbole_gr.errors import ConfigError


class Layout(NamedTuple):
    """How many processes there are and where: RecBole's keys of the same names."""

    nproc: int  # processes on this machine
    world_size: int  # processes on all machines
    ip: str  # of the first machine
    port: int | None
    group_offset: int  # rank of this machine's first process


def layout_of(settings: Any) -> Layout:
    """The layout that settings ask for, checked; one process where they say nothing.

    Args:
        settings (dict): with some of the keys of :class:`Layout`; ``world_size: -1`` is ``nproc``.

    Raises:
        ConfigError: numbers that contradict each other; names key and remedy.
    """
    nproc = _whole(settings, "nproc", 1, 1)
    world_size = _whole(settings, "world_size", -1, -1)
    offset = _whole(settings, "group_offset", 0, 0)
    port = settings.get("port")
    if port is not None:
        port = _whole({"port": int(port) if str(port).isdigit() else port}, "port", None, 1)
        if port > 65535:
            raise ConfigError(f"port: {port} must be an integer from 1 to 65535")
    if world_size < 1:
        world_size = nproc + offset
    if offset + nproc > world_size:
        raise ConfigError(
            f"world_size: {world_size} processes on all machines are fewer than group_offset "
            f"{offset} + nproc {nproc} of this one. world_size is the sum of nproc over the "
            "machines, group_offset the sum over the machines before."
        )
    return Layout(nproc, world_size, str(settings.get("ip") or "localhost"), port, offset)


def _whole(settings: Any, key: str, default: int | None, least: int) -> int:
    value = settings.get(key)
    value = default if value is None else value
    if type(value) is not int or value < least:
        raise ConfigError(f"{key}: {value!r} must be an integer of at least {least}")
    return value
