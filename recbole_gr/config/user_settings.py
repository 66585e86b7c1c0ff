"""Settings that a user has given, by source: files, `config_dict`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from recbole_gr.config.parsing import file_list, parse_arguments, parse_value, read_yaml
from recbole_gr.config.schema import Key, check_settings
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Settings


@dataclass(frozen=True)
class Source:
    """Settings from one place.

    Attributes:
        name: for messages: "command line", "config_dict", "file 'a.yaml'".
        settings: by key, as parsed.
        file: the path, where it is a file.
        direct: it is no file, nor a section of one, and wins over these.
    """

    name: str
    settings: dict[str, Any]
    file: str | None = None
    direct: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class UserSettings:
    """Everything a user has set, parsed once; the later source wins.

    Attributes:
        sources: the files in their order, `config_dict`, the command line.
    """

    sources: tuple[Source, ...] = field(default_factory=tuple)

    @classmethod
    def read(
        cls,
        config_file_list: list[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        cmd_args: Iterable[str] | None = None,
    ) -> UserSettings:
        """Parse settings of all kinds.

        Args:
            config_file_list (list[str] | None): YAML files; files named by `--config_files` follow
                them.
            config_dict (dict | None): settings of the Python API; text is parsed as on the command
                line.
            cmd_args (list[str] | None): `--key=value` or `--key value` arguments.

        Raises:
            ConfigError: a file or an argument that cannot be read.
        """
        arguments = parse_arguments(cmd_args)
        direct = {key: parse_value(value, key) for key, value in (config_dict or {}).items()}
        files = file_list(config_file_list)
        files += file_list(direct.pop("config_files", None)) + file_list(
            arguments.pop("config_files", None)
        )
        return cls(
            (
                *(Source(f"file '{path}'", read_yaml(path), str(path)) for path in files),
                Source("config_dict", direct, direct=True),
                Source("command line", arguments, direct=True),
            )
        )

    @property
    def files(self) -> list[str]:
        """Paths of the files, the later winning."""
        return [source.file for source in self.sources if source.file is not None]

    @property
    def in_files(self) -> dict[str, Any]:
        """What the files set."""
        return merged(source.settings for source in self.sources if not source.direct)

    @property
    def direct(self) -> dict[str, Any]:
        """What is set beside the files: `config_dict` and, winning, the command line."""
        return merged(source.settings for source in self.sources if source.direct)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by key."""
        return {**self.in_files, **self.direct}

    def get(self, key: str) -> Any:
        """The value of a key, None where it is not set."""
        return self.settings.get(key)

    def source_of(self, key: str) -> Source | None:
        """Where the value of a key came from, None where it is not set."""
        return next((s for s in reversed(self.sources) if key in s.settings), None)

    def with_settings(self, settings: dict[str, Any]) -> UserSettings:
        """The same with settings of the program's own, which win over all others."""
        return UserSettings((*self.sources, Source("set by the run", settings, direct=True)))

    def after_files(self, source: Source) -> UserSettings:
        """The same with one more source, which wins over the files alone."""
        if not source.settings:
            return self
        n = sum(not source.direct for source in self.sources)
        return UserSettings((*self.sources[:n], source, *self.sources[n:]))

    def checked(self, keys: Mapping[str, Key]) -> UserSettings:
        """The same with every value in the form in which code reads it.

        Raises:
            ConfigError: naming key, value, source, and what may be given, for all that are wrong.
        """
        sources, wrong = [], []
        for source in self.sources:
            try:
                settings = check_settings(source.settings, keys, source)
                sources.append(replace(source, settings=settings))
            except ConfigError as error:
                wrong.append(str(error))
        if wrong:
            raise ConfigError("\n".join(wrong))
        return UserSettings(tuple(sources))


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One dictionary of several, the later winning."""
    result: dict[str, Any] = {}
    for layer in layers:
        result.update(layer)
    return result


def option(config: Settings, key: str) -> Any:
    """The value of a key, None where it is missing, from RecBole's ``Config`` or a dictionary."""
    try:
        return config[key]
    except KeyError:
        return None


def options_of(
    config: Settings, defaults: Mapping[str, Any], keys: Mapping[str, Key]
) -> dict[str, Any]:
    """Values of all keys of ``defaults``; ``tokenizer_seed`` is an integer, by default ``seed``.

    Raises:
        ConfigError: a value that its key may not have.
    """
    given = {key: value for key in defaults if (value := option(config, key)) is not None}
    options = {**defaults, **check_settings(given, keys)}
    if options["tokenizer_seed"] is None:
        seed = option(config, "seed")
        options["tokenizer_seed"] = 2020 if seed is None else int(seed)
    return options
