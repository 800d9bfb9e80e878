"""The one exception that the vendoring commands raise for what a person can fix."""


class VendoringError(Exception):
    """Something that keeps the copy of upstream from being made, checked or refreshed.

    The message says what was found, why it cannot work and how to fix it; the command line prints
    it without a traceback.
    """


class WheelNotFoundError(VendoringError):
    """pip found no such wheel, or no index.

    Attributes:
        reason: the last line that pip printed.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
