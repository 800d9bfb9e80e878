"""Opens a rank's CUDA device in a thread while Python imports: the driver takes a second for it.

This only saves time: if it fails, torch opens the device itself.
"""

import ctypes
import sys
import threading
from contextlib import suppress

DRIVER = "libcuda.so.1"


def open_device(number: int) -> threading.Thread | None:
    """Start a thread that opens a device, and return it; None if torch is imported already.

    Args:
        number: the device's index among those that this process sees.
    """
    if "torch" in sys.modules:  # which may have opened it, or have been told to leave it
        return None
    thread = threading.Thread(target=_open, args=(number,), daemon=True)
    thread.start()
    return thread


def _open(number: int) -> None:
    """Create the device's primary context, which torch uses too."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    with suppress(OSError, AttributeError):  # no driver here, or one without these functions
        driver = ctypes.CDLL(DRIVER)
        if not driver.cuInit(0) and not driver.cuDeviceGet(ctypes.byref(device), number):
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
