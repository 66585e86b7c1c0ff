"""A device that nobody has: CPU tensors that say they lie elsewhere and tell when they are waited
for.

Torch lets Python stand in for a device. A tensor of it here wraps one on the CPU, and every
operation runs on what is wrapped: values are right, so a step there can be compared with one on the
CPU. What a GPU would refuse is an error (tensors of two devices in one operation), and what makes
the host wait for a GPU is noted, or an error in :func:`never_waiting`: a value that is read, a size
that follows from values, a copy between the devices that blocks.

What it cannot show: numbers of GPU kernels, their speed and memory, random generators of their own.
"""

import contextlib
import traceback
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

SET_UP = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
needed = pytest.mark.skipif(SET_UP is None, reason="this torch has no devices made in Python")
KIND = "madeup"
aten = torch.ops.aten
COPIES = ("_to_copy", "copy_")
WAITED_FOR = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "argwhere", "_unique", "_unique2",
    "unique_dim", "unique_consecutive", "unique_dim_consecutive", "bincount", "masked_select",
    "multinomial",
}  # fmt: skip
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
# Autocast knows nothing of the device unless told; of its lists, what the models multiply with.
CAST = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
OF_REPOSITORY = str(Path(__file__).parents[1])


class Waits(AssertionError):
    """The host would wait for the device."""


class There(torch.Tensor):
    """A tensor of the made-up device, around ``here`` on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here):
        there = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype, device=f"{KIND}:0",
        )  # fmt: skip
        there.here = here
        return there

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self.here = value.here

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self):
        return f"There({self.here!r})"


class _Everything(TorchDispatchMode):
    """Also the operations that make a tensor out of none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Module:
    """What torch asks the module of a device, ``torch.madeup``."""

    def __getattr__(self, name):
        answers = {
            "is_available": True, "is_initialized": True, "_is_in_bad_fork": False,
            "device_count": 1, "current_device": 0, "manual_seed_all": None,
            "get_amp_supported_dtype": [torch.bfloat16, torch.float16],
        }  # fmt: skip
        if name not in answers:
            raise AttributeError(name)
        return lambda *args: answers[name]

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)


class _Noted:
    """The waits so far, whatever the thread (backward has its own)."""

    places: list[str] = []
    forbidden = False


@contextlib.contextmanager
def device():
    """The made-up device; inside the block tensors can be made on it."""
    _set_up()
    with _Everything():
        yield torch.device(KIND)


@contextlib.contextmanager
def never_waiting():
    """An operation inside the block that the host would wait for raises :class:`Waits`."""
    before, _Noted.forbidden = _Noted.forbidden, True
    try:
        yield
    finally:
        _Noted.forbidden = before


@contextlib.contextmanager
def waits():
    """A list that holds, after the block, each wait in it: the operation and the line."""
    start, noted = len(_Noted.places), []
    yield noted
    noted += _Noted.places[start:]


def _run(func, args, kwargs):
    """One operation on what its tensors wrap."""
    name = func.overloadpacket.__name__
    tensors = []
    inner_args, inner = _map(_here, args, tensors), _map(_here, kwargs, tensors)
    there = [x for x in tensors if isinstance(x, There)]
    asked = kwargs.get("device")
    if not there and not (asked is not None and torch.device(asked).type == KIND):
        return func(*args, **kwargs)
    if name in COPIES:
        source, target = args[1 if name == "copy_" else 0], args[0] if name == "copy_" else asked
        _check_copy(func, args, kwargs, source, target)
    else:
        # A number may come along as a tensor without dimensions, as on a GPU.
        mixed = [x for x in tensors if x.dim() and not isinstance(x, There)]
        # Places of an index are copied to the device: torch allows it, and the host waits.
        places = list(args[1]) if name in INDEXED and isinstance(args[0], There) else []
        if there and not all(any(x is place for place in places) for x in mixed):
            raise RuntimeError(f"{func}: also a tensor on the CPU, {list(mixed[0].shape)}")
        if name in WAITED_FOR or mixed or _size_follows(name, args, kwargs):
            _note(func)
    inner.pop("pin_memory", None)
    if asked is not None:
        inner["device"] = torch.device("cpu")
    out = func(*inner_args, **inner)
    if name == "_local_scalar_dense" or (
        name == "_to_copy" and asked is not None and torch.device(asked).type != KIND
    ):
        return out
    if name == "copy_" and not isinstance(args[0], There):
        return args[0]
    out = _map(There, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if _aliases(func) else out


def _here(x):
    return x.here if isinstance(x, There) else x


def _map(change, x, met=None):
    """The arguments or results of an operation, all tensors (put into ``met``) changed; torch's
    own pytree takes as long as all the rest."""
    if isinstance(x, torch.Tensor):
        if met is not None:
            met.append(x)
        return change(x)
    if type(x) in (tuple, list):
        return type(x)([_map(change, y, met) for y in x])
    if type(x) is dict:
        return {key: _map(change, y, met) for key, y in x.items()}
    return x


@cache
def _aliases(func):
    """Whether a result is one of the arguments, or a view of it."""
    return any(value.alias_info is not None for value in func._schema.returns)


def _check_copy(func, args, kwargs, source, target):
    """To the CPU the host waits for the values. To the device it waits for all steps before, unless
    told not to block."""
    was = isinstance(source, There)
    if isinstance(target, torch.Tensor):
        is_to_be = isinstance(target, There)
    else:
        is_to_be = was if target is None else torch.device(target).type == KIND
    non_blocking = kwargs.get("non_blocking") or (
        func is aten.copy_.default and args[2:] == (True,)
    )
    if was != is_to_be and (was or not non_blocking):
        _note(func)


def _size_follows(name, args, kwargs):
    if name in INDEXED:
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return name == "repeat_interleave" and kwargs.get("output_size") is None


def _note(func):
    frames = [
        frame for frame in traceback.extract_stack()
        if frame.filename.startswith(OF_REPOSITORY) and frame.filename != __file__
    ]  # fmt: skip
    place = f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else "?"
    _Noted.places.append(f"{func} at {place}")
    if _Noted.forbidden:
        raise Waits(_Noted.places[-1])


_LIBRARIES = []  # a library's kernels last as long as the library


def _set_up():
    """Make the device known to torch, once a process."""
    if _LIBRARIES:
        return
    SET_UP(rename=KIND, backend_module=_Module())
    # `torch.tensor([...], device=...)` makes a tensor and copies it, below all modes.
    kernels = torch.library.Library("aten", "IMPL", "PrivateUse1")
    kernels.impl("empty_strided", lambda *a, **k: _run(aten.empty_strided.default, a, k))
    kernels.impl("_to_copy", lambda *a, **k: _run(aten._to_copy.default, a, k))
    kernels.impl(
        "_copy_from", lambda source, target, wait=False: aten.copy_.default(target, source, wait)
    )
    fallback = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    fallback.fallback(torch.library.fallthrough_kernel)
    casts = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for name in CAST:
        casts.impl(name, _cast_before(getattr(aten, name).default))
    _LIBRARIES.extend((kernels, fallback, casts))


def _cast_before(func):
    """The operation on floats of the type of autocast."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args, **kwargs):
        wanted = torch.get_autocast_dtype(KIND)

        def cast(x):
            return x.to(wanted) if x.dtype == torch.float32 and isinstance(x, There) else x

        with torch._C._ExcludeDispatchKeyGuard(key):
            return func(*_map(cast, args), **_map(cast, kwargs))

    return kernel
