"""Has the driver open a rank's CUDA device, which takes it a second, while the imports take theirs.

Nothing depends on it: torch waits for the driver, uses what is open, and opens what is not.
"""

import ctypes
import sys
import threading
from contextlib import suppress

DRIVER = "libcuda.so.1"


def open_device(number: int) -> threading.Thread | None:
    """Begin to open a device, and return the thread that does; None if torch is imported already.

    Args:
        number: the device's, among those that this process sees.
    """
    if "torch" in sys.modules:  # which may have opened it, or have been told to leave it
        return None
    thread = threading.Thread(target=_open, args=(number,), daemon=True)
    thread.start()
    return thread


def _open(number: int) -> None:
    """Make the device's primary context, the one that torch uses."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    with suppress(OSError, AttributeError):  # no driver here, or one without these functions
        driver = ctypes.CDLL(DRIVER)
        if not driver.cuInit(0) and not driver.cuDeviceGet(ctypes.byref(device), number):
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
