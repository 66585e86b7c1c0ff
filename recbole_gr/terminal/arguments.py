"""Arguments of a command line, as they are split by a shell."""

from collections.abc import Iterable


def joined(arguments: Iterable[str]) -> list[str]:
    """Arguments with `--key value` written as `--key=value`; `--quiet` stands alone."""
    result: list[str] = []
    for argument in arguments:
        last = result[-1] if result else ""
        waits = last.startswith("--") and "=" not in last and last not in ("--", "--quiet")
        if waits and not argument.startswith("--"):
            result[-1] = f"{last}={argument}"
        else:
            result.append(argument)
    return result
