"""What is searched: the parameters of a file in the form of RecBole's `hyper.test`."""

import ast
import math
import os
import random
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from recbole_gr.config.parsing import parse_value
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.storage.text import read_text

FORMS = {
    "choice": "choice [1,2,3]",
    "uniform": "uniform 0.1,0.5",
    "quniform": "quniform 1,5,1",
    "loguniform": "loguniform -8,0",
}
Params = dict[str, Any]
REPEATS = 1000  # draws of parameters that were drawn before, after which a space is exhausted


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        name: the key.
        kind: one of `FORMS`.
        values: of a `choice`.
        low, high: bounds; those of `loguniform` are natural logarithms, as in RecBole.
        step: of `quniform`.
        line: where the file has it.
    """

    name: str
    kind: str
    values: tuple = ()
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    line: int = 0

    def grid(self) -> list:
        """All values, where there are finitely many; a ConfigError elsewhere."""
        if self.kind == "choice":
            return list(self.values)
        if self.kind == "quniform":
            return [self.step_value(number) for number in range(self.n_steps())]
        raise ConfigError(
            f"line {self.line}: {self.name} {self.kind} has infinitely many values; search with "
            "--algo=random or --algo=bayes, or write 'choice' or 'quniform'"
        )

    def draw(self, generator: random.Random) -> Any:
        """A random value."""
        if self.kind == "choice":
            return self.values[generator.randrange(len(self.values))]
        if self.kind == "quniform":
            return self.step_value(generator.randrange(self.n_steps()))
        value = self.low + (self.high - self.low) * generator.random()
        return math.exp(value) if self.kind == "loguniform" else value

    def n_steps(self) -> int:
        """How many values `quniform` has."""
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def step_value(self, number: int) -> int | float:
        """Value `number` of `quniform`, from 0; whole where all of them are."""
        value = round(self.low + number * self.step, 12)
        whole = float(self.low).is_integer() and float(self.step).is_integer()
        return int(value) if whole else value

    def described(self) -> dict[str, Any]:
        """Plain values, without the line."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key != "line"
        }


def read_space(path: str | os.PathLike) -> list[Parameter]:
    """The parameters of a file: on each line a name, a form and its values.

    `name choice [v1,v2]`, `name uniform low,high`, `name quniform low,high,step` and
    `name loguniform low,high` (exp of a uniform number, so `-8,0` is 0.0003 to 1). Values are
    Python or YAML; empty lines and those that begin with # count for nothing.

    Raises:
        ConfigError: names file and line, and says what the line should look like.
    """
    lines = read_text(path, f"--params_file={path}").split("\n")
    space: dict[str, Parameter] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            parameter = _parameter(line.split(None, 2), number)
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        if parameter.name in space:
            first = space[parameter.name].line
            raise ConfigError(
                f"{path}, line {number}: {parameter.name} stands on line {first} already; leave "
                "one of them out"
            )
        space[parameter.name] = parameter
    if not space:
        raise ConfigError(
            f"{path} names no parameter; write a line such as 'n_layers choice [1,2]'"
        )
    return list(space.values())


def _parameter(parts: list[str], line: int) -> Parameter:
    if len(parts) < 2:
        raise ConfigError(f"'{parts[0]}' alone; write '{parts[0]} {FORMS['choice']}', for example")
    name, kind = parts[:2]
    if kind not in FORMS:
        raise ConfigError(f"'{kind}' is none of {', '.join(FORMS)}{did_you_mean(kind, FORMS)}")
    form = f"write '{name} {FORMS[kind]}', for example"
    text = parts[2].strip() if len(parts) > 2 else ""
    if kind == "choice":
        values = parse_value(text)
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"{text!r} is no list of values; {form}")
        plain = tuple(_plain(value) for value in values)
        if any(plain.count(value) > 1 for value in plain if not isinstance(value, bool)):
            raise ConfigError(f"{text!r} holds a value twice; leave one of them out")
        return Parameter(name, kind, plain, line=line)
    numbers = _numbers(text)
    if numbers is None or len(numbers) != (3 if kind == "quniform" else 2):
        raise ConfigError(f"{text!r} is not what {kind} takes; {form}")
    low, high, *step = numbers
    if low >= high:
        raise ConfigError(f"the lower bound {low:g} is not below the upper one {high:g}; {form}")
    if step and not 0 < step[0] <= high - low:
        raise ConfigError(f"the step {step[0]:g} must be above 0 and fit the bounds; {form}")
    return Parameter(name, kind, low=low, high=high, step=step[0] if step else 0.0, line=line)


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(ast.literal_eval(part.strip())) for part in text.split(",")]
    except (ValueError, SyntaxError, TypeError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples, and words as the command line reads them."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def grid(space: list[Parameter]) -> list[Params]:
    """Every combination, the last parameter changing first."""
    names = [parameter.name for parameter in space]
    return [dict(zip(names, values)) for values in product(*(p.grid() for p in space))]


def draws(space: list[Parameter], n: int, seed: int) -> list[Params]:
    """The first `n` of an endless row of different random combinations; fewer where there are no
    more. A longer row begins as a shorter one."""
    drawn: list[Params] = []
    seen: set[str] = set()
    generator, repeats = random.Random(seed), 0
    while len(drawn) < n and repeats < REPEATS:
        params = {parameter.name: parameter.draw(generator) for parameter in space}
        key = repr(params)
        repeats = repeats + 1 if key in seen else 0
        if key not in seen:
            seen.add(key)
            drawn.append(params)
    return drawn
