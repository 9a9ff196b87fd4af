"""What fixes the bytes of a run, in one place."""

import ctypes
import os
import random
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from regrow.support import ranks
from regrow.support.environment import has_bfloat16_products
from regrow.support.errors import UserError
from regrow.support.schema import Compute

_runtime: dict[str, torch.dtype] = {}


def products(device_type: str) -> AbstractContextManager[Any]:
    """In what a forward runs: matrix products in `compute.mixed_precision`, where it is set."""
    products = _runtime.get("products")
    return nullcontext() if products is None else torch.autocast(device_type, products)


def fix_runtime(compute: Compute, seed: int, keep_memory: bool = True) -> None:
    """Make this process repeatable and one of its stage's ranks; before any model is loaded.

    - threads: sums are split by thread, so another number of threads rounds otherwise;
    - deterministic algorithms: torch picks kernels whose result does not hang on timing, or says
      that there is none (cuBLAS needs its workspace setting for that). In this mode torch also
      fills new memory before use, a twentieth of a training step, for programs that read what they
      never wrote; this one does not;
    - seeds: nothing here should draw from global generators, but a model with dropout does.

    With `keep_memory`, freed memory is kept for the next step, which is faster and takes more.
    Raises `UserError` where bfloat16 products are asked for and there are none.
    """
    mixed = compute.mixed_precision is not None
    if mixed and not has_bfloat16_products(compute.device):
        raise UserError(
            f"compute.mixed_precision is bfloat16, but {compute.device} here multiplies no such "
            "matrices itself, and would take a hundred times as long; set it to null, or take "
            "another machine (`python -m regrow doctor` says what one has)"
        )
    ranks.join(compute)
    sharded = compute.shard and ranks.world() > 1
    # Gathered weights come and go: kept blocks of them double the peak.
    if keep_memory and not sharded:
        _keep_freed_memory()
    # Under FSDP2 the type of products is part of how the model is sharded.
    _runtime.clear()
    if mixed and not sharded:
        _runtime["products"] = torch.bfloat16
    if mixed:
        # For every number of rows, which differs from step to step, oneDNN makes other kernels on a
        # CPU, and keeps a thousand of each kind: some 30 MB more a step. Anew they take no time.
        for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            os.environ.setdefault(cache, "16")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(compute.threads)
    # As `use_deterministic_algorithms`, which imports torch's compiler too: a second, and 70 MB.
    torch.set_deterministic_debug_mode("error")
    deterministic: Any = torch.utils.deterministic  # its property is made at run time
    deterministic.fill_uninitialized_memory = False
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _keep_freed_memory() -> None:
    """Let glibc reuse large freed blocks rather than give them back to the kernel.

    A training step frees and asks for hundreds of megabytes of logits and gradients; pages that
    come back from the kernel are zeroed first, about a tenth of the step. No byte of a result
    hangs on it.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        most_mappings, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        mallopt(most_mappings, 0)
        mallopt(trim_threshold, -1)
