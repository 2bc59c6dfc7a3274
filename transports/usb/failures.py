"""Which failure an error of pyusb is.

pyusb's back ends give the operating system's error number, or only their own code, which is libusb 1.0's for all but
the oldest (libusb 1.0 API, enum libusb_error).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import usb.core

from ..errors import TransportError, UsbBusy, UsbFault, UsbForbidden, UsbGone, UsbStall, UsbTimeout

_BY_ERRNO: Mapping[int, type[TransportError]] = {
    errno.EPIPE: UsbStall,
    errno.ETIMEDOUT: UsbTimeout,
    errno.ENODEV: UsbGone,
    errno.ENOENT: UsbGone,
    errno.EIO: UsbGone,
    errno.EACCES: UsbForbidden,
    errno.EPERM: UsbForbidden,
    errno.EBUSY: UsbBusy,
}

_BY_LIBUSB_CODE: Mapping[int, type[TransportError]] = {
    -1: UsbGone,  # LIBUSB_ERROR_IO
    -3: UsbForbidden,  # LIBUSB_ERROR_ACCESS
    -4: UsbGone,  # LIBUSB_ERROR_NO_DEVICE
    -5: UsbGone,  # LIBUSB_ERROR_NOT_FOUND
    -6: UsbBusy,  # LIBUSB_ERROR_BUSY
    -7: UsbTimeout,  # LIBUSB_ERROR_TIMEOUT
    -9: UsbStall,  # LIBUSB_ERROR_PIPE
}

_MEANING: Mapping[type[TransportError], str] = {
    UsbStall: "the device refuses it (STALL)",
    UsbTimeout: "the device did not answer in time",
    UsbGone: "the device is gone",
    UsbForbidden: "this user may not",
    UsbBusy: "another program or a kernel driver holds it",
}


FAILURES = (usb.core.USBError, NotImplementedError)
"""What a back end raises; NotImplementedError for what it or the operating system can't do."""


def kind_of(error: Exception) -> type[TransportError]:
    """UsbStall, UsbTimeout, UsbGone, UsbForbidden, UsbBusy; UsbFault for every other of `FAILURES`."""
    if isinstance(error, usb.core.USBTimeoutError):
        return UsbTimeout
    if not isinstance(error, usb.core.USBError):
        return UsbFault
    if error.errno is not None:
        return _BY_ERRNO.get(error.errno, UsbFault)
    return _BY_LIBUSB_CODE.get(error.backend_error_code, UsbFault)


def named(error: Exception, doing: str) -> TransportError:
    """One of `FAILURES` as the error that it is; `doing`: the attempt, and on which device."""
    kind = kind_of(error)
    text = str(getattr(error, "strerror", None) or error or "not supported").rstrip(".")
    meaning = _MEANING.get(kind)
    return kind(f"{doing}: {meaning} ({text})" if meaning else f"{doing}: {text}")


@contextmanager
def naming(doing: str) -> Iterator[None]:
    """Raises what the body fails with as the error that it is."""
    try:
        yield
    except FAILURES as error:
        raise named(error, doing) from error
