"""The real llama.cpp, in the wheel ``xllamacpp``, through its C functions.

Its structures of parameters are taken as blocks of bytes that are larger than they are: they are
passed in memory, so only the fields that are set here must be known.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

INT, POINTER, BOOL = ctypes.c_int32, ctypes.c_void_p, ctypes.c_bool


class Parameters(ctypes.Structure):
    """``llama_model_params`` or ``llama_context_params``, which begin with these numbers."""

    _fields_ = [("numbers", ctypes.c_uint32 * 256)]


class Batch(ctypes.Structure):
    """``llama_batch``: a number of tokens, and arrays of them."""

    _fields_ = [("count", INT), ("arrays", POINTER * 6)]


FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [POINTER, POINTER]),
    "llama_model_default_params": (Parameters, []),
    "llama_context_default_params": (Parameters, []),
    "llama_model_load_from_file": (POINTER, [ctypes.c_char_p, Parameters]),
    "llama_init_from_model": (POINTER, [POINTER, Parameters]),
    "llama_model_get_vocab": (POINTER, [POINTER]),
    "llama_vocab_n_tokens": (INT, [POINTER]),
    "llama_vocab_is_eog": (BOOL, [POINTER, INT]),
    "llama_tokenize": (INT, [POINTER, ctypes.c_char_p, INT, POINTER, INT, BOOL, BOOL]),
    "llama_batch_get_one": (Batch, [POINTER, INT]),
    "llama_decode": (INT, [POINTER, Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [POINTER, INT]),
    "llama_adapter_lora_init": (POINTER, [POINTER, ctypes.c_char_p]),
    "llama_set_adapters_lora": (INT, [POINTER, POINTER, ctypes.c_size_t, POINTER]),
    "llama_get_memory": (POINTER, [POINTER]),
    "llama_memory_clear": (None, [POINTER, BOOL]),
    "llama_free": (None, [POINTER]),
    "llama_model_free": (None, [POINTER]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [INT, POINTER, POINTER, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, POINTER],
    ),
}


def _library() -> Any:
    import xllamacpp

    library = ctypes.CDLL(str(next(Path(xllamacpp.__path__[0]).glob("xllamacpp*.so"))))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(ctypes.cast(_SILENT, POINTER), None)
    library.llama_backend_init()
    return library


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, POINTER)
def _SILENT(level: int, text: bytes, data: object) -> None:  # noqa: N802
    """Print nothing."""


class LlamaCpp:
    """A model that llama.cpp has loaded."""

    def __init__(self, path: Path, positions: int = 256) -> None:
        self._library = library = _library()
        self._model = library.llama_model_load_from_file(
            str(path).encode(), library.llama_model_default_params()
        )
        assert self._model, f"llama.cpp does not load {path}"
        parameters = library.llama_context_default_params()
        parameters.numbers[:3] = [positions] * 3  # n_ctx, n_batch, n_ubatch
        self._context = library.llama_init_from_model(self._model, parameters)
        assert self._context
        self._vocabulary = library.llama_model_get_vocab(self._model)

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: object) -> None:
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def add_lora(self, path: Path) -> None:
        """Add an adapter to the weights.

        Raises:
            ValueError: if llama.cpp does not take it.
        """
        adapter = self._library.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise ValueError(f"llama.cpp does not load {path}")
        adapters, scales = (POINTER * 1)(adapter), (ctypes.c_float * 1)(1)
        assert self._library.llama_set_adapters_lora(self._context, adapters, 1, scales) == 0

    def tokens(self, text: str) -> list[int]:
        """Return a text's ids, special tokens in it parsed and those around it added."""
        content = text.encode()
        found = (INT * (len(content) + 16))()
        count = self._library.llama_tokenize(
            self._vocabulary, content, len(content), found, len(found), True, True
        )
        return list(found[:count])

    def ends(self, token: int) -> bool:
        """Return whether an answer ends at a token."""
        return bool(self._library.llama_vocab_is_eog(self._vocabulary, token))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each token, (tokens, vocabulary)."""
        library, one = self._library, (INT * 1)()
        library.llama_memory_clear(library.llama_get_memory(self._context), True)
        size = library.llama_vocab_n_tokens(self._vocabulary)
        rows = []
        for token in ids:
            one[0] = token
            assert library.llama_decode(self._context, library.llama_batch_get_one(one, 1)) == 0
            found = library.llama_get_logits_ith(self._context, -1)
            rows.append(np.ctypeslib.as_array(found, (size,)).copy())
        return np.stack(rows)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the likeliest tokens after some, one by one."""
        found = list(ids)
        for _ in range(count):
            found.append(int(self.logits(found)[-1].argmax()))
        return found[len(ids) :]


def quantized(weight: np.ndarray, kind: Any) -> np.ndarray:
    """Return a weight as llama.cpp quantises it, (rows, bytes)."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[kind]
    rows, columns = weight.shape
    found = np.zeros((rows, columns // block * size), np.uint8)
    weight = np.ascontiguousarray(weight, np.float32)
    _library().ggml_quantize_chunk(
        int(kind), weight.ctypes.data, found.ctypes.data, 0, rows, columns, None
    )
    return found
