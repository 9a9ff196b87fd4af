"""What the bytes of a result hang on beside its inputs, parameters and code, and how to compare it.

`model/runtime.py` fixes what a process can fix. What is left is the machine and the libraries: a
matrix product is summed in another order by other vector instructions, threads or library versions,
the last bits differ, and training carries them on.
"""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from regrow.support.errors import UserError
from regrow.support.files import read_json
from regrow.support.schema import Compute

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "safetensors", "accelerate", "gguf"),
    *("numpy", "scipy", "scikit-learn", "pyarrow", "matplotlib", "dvclive"),
)

# What has torch, MKL, oneDNN or OpenMP choose another kernel or another number of threads.
VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS"),
    *("MKL_NUM_THREADS", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
)

# Named for the reader: no byte of a model or a prediction is made by these.
HARMLESS = {"operating system", "Python", "dvclive", "matplotlib"}


def describe(compute: Compute) -> dict[str, str]:
    """What a process with these settings runs on: name → value, in the order to print it in."""
    import torch

    build = torch.__config__.show()
    described = {
        "device": compute.device,
        "dtype": compute.dtype,
        "threads": str(compute.threads),
        "processor": processor(),
        "architecture": platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "matrix products": _found(build, r"Math Kernel Library Version ([\w.-]+)", "MKL {}"),
        "fused operators": _found(build, r"MKL-DNN v([\w.]+)", "oneDNN {}"),
        "operating system": platform.system(),
        "C library": " ".join(platform.libc_ver()).strip() or "unknown",
        "Python": platform.python_version(),
    }
    if compute.device.startswith("cuda"):
        described["accelerator"] = (
            torch.cuda.get_device_name(compute.device) if torch.cuda.is_available() else "none"
        )
        described["CUDA"] = str(torch.version.cuda)
    if "bfloat16" in (compute.dtype, compute.mixed_precision):
        described["bfloat16 products"] = ", ".join(bfloat16_instructions()) or "none"
    described |= {
        name: torch.__version__ if name == "torch" else version(name) for name in LIBRARIES
    }
    described |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return described


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """The names of what differs between two descriptions, or stands in one of them alone."""
    return [name for name in here | there if here.get(name) != there.get(name)]


def read(path: Path) -> dict[str, str]:
    """Read a description; `UserError` where there is none."""
    advice = (
        "`make repro` writes how the results were made, or `python -m regrow doctor --record "
        f"{path}` on the machine that made them"
    )
    described = read_json(path, advice)
    if not all(isinstance(value, str) for value in described.values()):
        raise UserError(f"{path} says more than texts; {advice}")
    return described


def has_bfloat16_products(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices itself, as `compute.mixed_precision` wants.

    Without such instructions they are computed all the same, a hundred times slower on a CPU.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(bfloat16_instructions())


def bfloat16_instructions() -> list[str]:
    """Those of the processor that multiply bfloat16 matrices, by their names in Linux."""
    flags = cpu_flags()
    return [name for name in ("avx512_bf16", "amx_bf16", "bf16") if name in flags]  # last: Arm's


def cpu_flags() -> list[str]:
    """The processor's features, by their names in Linux."""
    found = re.search(r"(?:flags|Features)\s*:\s*(.+)", _cpuinfo())
    return found[1].split() if found else []


def processor() -> str:
    """The processor's name; what Linux knows says more than Python does."""
    found = re.search(r"model name\s*:\s*(.+)", _cpuinfo())
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _found(text: str, pattern: str, form: str) -> str:
    match = re.search(pattern, text)
    return form.format(match[1].strip()) if match else "none"
