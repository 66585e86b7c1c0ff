"""Settings: every key once, with type, range, default, help and owner; parsing, sources, checks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_gr.config.config import Config, Settings

__all__ = ["Config", "Settings"]


def __getattr__(name: str) -> Any:
    """Import `Config`, and RecBole with it, when it is asked for: commands parse without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recbole_gr.config import config

    return getattr(config, name)
