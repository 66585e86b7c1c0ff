"""Files that differ in one key from what was written, and whether they are refused."""

import copy

from recbole_gr.errors import ConfigError

DROPPED = object()
WRONG = (DROPPED, None, "x", [1], -7, {"a": 1}, 1.5, True)


def paths(value, depth, above=()):
    """Keys of nested dicts down to a depth, as tuples."""
    for key, item in value.items():
        yield (*above, key)
        if depth > 1 and isinstance(item, dict):
            yield from paths(item, depth - 1, (*above, key))


def changed(value, path, to):
    """A copy with another value at a path, or without it."""
    value = copy.copy(value)
    if len(path) > 1:
        value[path[0]] = changed(value[path[0]], path[1:], to)
    elif to is DROPPED:
        del value[path[0]]
    else:
        value[path[0]] = to
    return value


def variants(state, depth, keep=lambda path: True, wrong=WRONG):
    """Every state that differs in one key, with the key."""
    for path in filter(keep, paths(state, depth)):
        for to in wrong:
            yield ".".join(map(str, path)), changed(state, path, to)


def refused(use, file, key, required):
    """Whether `use` refuses a file, in words that name it and, where it must, the key."""
    try:
        use()
    except ConfigError as error:
        assert file in str(error)
        assert key.split(".")[0] in str(error) or not required
        return True
    return False
