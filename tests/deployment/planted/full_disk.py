"""The disk that DIRECTORY lies on is full, or read-only, from the moment when the file or log entry FROM is written.

FROM may also be the folder in which a folder is made; "" is from the beginning.

All of Python's ways to write are cut off: what is written to a full disk before it is noticed is half of it.
"""

import errno
import io
import os
import stat
from collections.abc import Callable
from typing import Any

DIRECTORY, FROM, CODE = os.environ["FULL_DIRECTORY"], os.environ["FULL_FROM"], os.environ["FULL_CODE"]
_real: dict[str, Callable[..., Any]] = {
    name: getattr(os, name) for name in ("open", "write", "fsync", "unlink", "mkdir", "replace", "rename")
}
_real_io_open = io.open
_full = not FROM


def _refuse() -> None:
    number = getattr(errno, CODE)
    raise OSError(number, os.strerror(number))


def _is_cut_off(path: object) -> bool:
    return _full and CODE == "EROFS" and str(path).startswith(DIRECTORY)


def _open(path: Any, flags: int, *rest: Any, **more: Any) -> Any:
    global _full
    _full = _full or str(path).rpartition("/")[2].startswith(f".{FROM}.")
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and _is_cut_off(path):
        _refuse()
    return _real["open"](path, flags, *rest, **more)


def _io_open(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
    if set(mode) & set("wax+") and _is_cut_off(file):
        _refuse()
    return _real_io_open(file, mode, *rest, **more)


def _write(descriptor: int, content: Any) -> Any:
    if _full and stat.S_ISREG(os.fstat(descriptor).st_mode):
        _real["write"](descriptor, bytes(content)[: len(content) // 2])
        _refuse()
    return _real["write"](descriptor, content)


def _fsync(descriptor: Any) -> None:
    if _full and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        _refuse()
    _real["fsync"](descriptor)


def _changing(name: str) -> Callable[..., Any]:
    def change(path: Any, *rest: Any, **more: Any) -> Any:
        global _full
        _full = _full or (name == "mkdir" and str(path).split("/")[-2] == FROM)
        if _is_cut_off(path):
            _refuse()
        return _real[name](path, *rest, **more)

    return change


def _before_entry(module: Any) -> None:
    write_line = module.write_line

    def noticed(entry: Any, key: Any) -> Any:
        global _full
        _full = _full or entry.event.value == FROM
        return write_line(entry, key)

    module.write_line = noticed


os.open, os.write, io.open = _open, _write, _io_open
setattr(os, "fsync", _fsync)  # noqa: B010 (typed for more than it is called with)
for _name in ("unlink", "mkdir", "replace", "rename"):
    setattr(os, _name, _changing(_name))
FAULTS = {"server.deploy.round_log": _before_entry}
