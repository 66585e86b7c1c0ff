"""The search space: the parameters of a file in the form of RecBole's `hyper.test`."""

from __future__ import annotations

import ast
import json
import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

from recbole_gr.config.parsing import parse_value
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.storage.text_files import read_text

FORMS = {
    "choice": "choice [1,2,3]",
    "uniform": "uniform 0.1,0.5",
    "quniform": "quniform 1,5,1",
    "loguniform": "loguniform -8,0",
}
MOST_LOG = 700  # exp of more is no number
Params = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        name: the key.
        kind: one of `FORMS`.
        distribution: Optuna's, of the values themselves.
        line: where the file has it.
    """

    name: str
    kind: str
    distribution: Any
    line: int = 0

    def grid(self) -> list:
        """All values, where there are finitely many; a ConfigError elsewhere."""
        if self.kind == "choice":
            return list(self.distribution.choices)
        if self.kind == "quniform":
            low, high, step = (getattr(self.distribution, key) for key in ("low", "high", "step"))
            return [self.exact(low + i * step) for i in range(round((high - low) / step) + 1)]
        raise ConfigError(
            f"line {self.line}: {self.name} {self.kind} has infinitely many values; search with "
            "--algo=random or --algo=bayes, or write 'choice' or 'quniform'"
        )

    def exact(self, value: Any) -> Any:
        """A value without the rounding error of its steps, as of 1 + 2 x 0.1."""
        return round(value, 12) if self.kind == "quniform" else value

    def described(self) -> dict[str, Any]:
        """Plain values, without the line."""
        from optuna.distributions import distribution_to_json

        attributes = json.loads(distribution_to_json(self.distribution))["attributes"]
        return {"kind": self.kind, **attributes}


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
            name, *rest = line.split(None, 1)
            found = parameter(name, "".join(rest), number)
            if name in space:
                first = space[name].line
                raise ConfigError(f"{name} stands on line {first} already; leave one of them out")
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        space[name] = found
    if not space:
        raise ConfigError(
            f"{path} names no parameter; write a line such as 'n_layers choice [1,2]'"
        )
    return list(space.values())


def parameter(name: str, values: str, line: int = 0) -> Parameter:
    """The parameter `name` with a form and its values, such as `loguniform -8,0`.

    Raises:
        ConfigError: says what it should look like.
    """
    with warnings.catch_warnings():
        # Of lists, which JSON gives back, and of bounds that are none of the steps.
        warnings.simplefilter("ignore")
        return _parameter([name, *values.split(None, 1)], line)


def _parameter(parts: list[str], line: int) -> Parameter:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

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
        values = json.loads(json.dumps(values))  # as they are read back: lists for tuples
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(f"{text!r} holds a value twice; leave one of them out")
        return Parameter(name, kind, CategoricalDistribution(values), line)
    numbers = _numbers(text)
    if numbers is None or len(numbers) != (3 if kind == "quniform" else 2):
        raise ConfigError(f"{text!r} is not what {kind} takes; {form}")
    low, high, *rest = numbers
    if low >= high:
        raise ConfigError(f"the lower bound {low:g} is not below the upper one {high:g}; {form}")
    if kind == "uniform":
        return Parameter(name, kind, FloatDistribution(low, high), line)
    if kind == "loguniform":
        if max(-low, high) > MOST_LOG:
            raise ConfigError(f"its bounds are natural logarithms, within +-{MOST_LOG}; {form}")
        distribution = FloatDistribution(math.exp(low), math.exp(high), log=True)
        return Parameter(name, kind, distribution, line)
    step = rest[0]
    if not 0 < step <= high - low:
        raise ConfigError(f"the step {step:g} must be above 0 and fit the bounds; {form}")
    if low.is_integer() and step.is_integer():
        whole = IntDistribution(int(low), math.floor(high), step=int(step))
        return Parameter(name, kind, whole, line)
    return Parameter(name, kind, FloatDistribution(low, high, step=step), line)


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(ast.literal_eval(part.strip())) for part in text.split(",")]
    except (ValueError, SyntaxError, TypeError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
