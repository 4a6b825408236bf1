"""Filter expressions as tcpdump has them (pcap-filter(7)), compiled to classic BPF by libpcap.

The library is Debian's libpcap0.8, loaded when the first expression is compiled. It is asked about a capture that does
not exist ("dead"), so nothing is opened. A host name in an expression would be looked up by this machine's resolver.
"""

from __future__ import annotations

import ctypes
from typing import Final

from netemu.model.errors import NetemuError, UserError

_LIBRARY: Final = "libpcap.so.0.8"
_DLT_EN10MB: Final = 1
_LONGEST_FRAME: Final = 262144
_NO_NETMASK: Final = 0xFFFFFFFF
_INSTRUCTION: Final = 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def compile_filter(expression: str) -> bytes:
    """An array of `struct sock_filter` for frames with an Ethernet header; what it takes, it takes whole.

    Raises UserError, in libpcap's own words, for an expression that is wrong; NetemuError where libpcap is missing.
    """
    library = _load()
    handle = ctypes.c_void_p(library.pcap_open_dead(_DLT_EN10MB, _LONGEST_FRAME))
    program = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _NO_NETMASK) != 0:
            said = ctypes.string_at(library.pcap_geterr(handle)).decode(errors="replace")
            raise UserError(f"filter {expression!r}: {said}; pcap-filter(7) has the syntax")
        code = ctypes.string_at(program.instructions or 0, program.length * _INSTRUCTION)
        library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)
    return code


def is_here() -> bool:
    """Whether expressions can be compiled on this machine."""
    try:
        _load()
    except NetemuError:
        return False
    return True


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NetemuError(f"filters need {_LIBRARY}, which is not here: apt-get install libpcap0.8") from error
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_void_p
    return library
