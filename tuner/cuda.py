"""CUDA kernels → PTX, by NVIDIA's runtime compiler: no toolkit and no GPU is needed, only the extra ``[cuda]``.

PTX is compiled for the GPU at hand by its driver when the module is loaded: code for one compute capability runs on all
later ones.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi

from tuner.errors import BuildError

# What the kernels of TVM include: NVIDIA's headers have it too, in packages of 10 MB and more.
_CSTDINT = """
namespace cuda { namespace std {
using int8_t = signed char; using int16_t = short; using int32_t = int; using int64_t = long long;
using uint8_t = unsigned char; using uint16_t = unsigned short; using uint32_t = unsigned int;
using uint64_t = unsigned long long;
} }
"""
_TYPE_TRAITS = """
namespace cuda { namespace std {
template <class T, T v> struct integral_constant { static constexpr T value = v; };
template <class, class> struct is_same : integral_constant<bool, false> {};
template <class T> struct is_same<T, T> : integral_constant<bool, true> {};
template <class T, class U> inline constexpr bool is_same_v = is_same<T, U>::value;
template <class T> struct is_integral : integral_constant<bool, T(0.5) == T(0)> {};
template <class T> struct is_floating_point : integral_constant<bool, T(0.5) != T(0)> {};
template <class T> struct is_signed : integral_constant<bool, T(-1) < T(0)> {};
template <class T> struct is_unsigned : integral_constant<bool, T(-1) >= T(0)> {};
template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { using type = T; };
template <bool, class T, class> struct conditional { using type = T; };
template <class T, class U> struct conditional<false, T, U> { using type = U; };
} }
"""
_HEADERS = {b"cuda/std/cstdint": _CSTDINT, b"cuda/std/type_traits": _TYPE_TRAITS}


def use_nvrtc() -> None:
    """Have TVM keep PTX in the modules that it builds.

    Where there is no GPU it would keep the source, to be compiled on the device by ``tvm_callback_cuda_compile``: what
    loads such a module has nothing left to compile (``run.py``).
    """

    def to_ptx(code: str, target: Any) -> str:
        return compile_ptx(code, arch=str(target.attrs["arch"])).decode()

    tvm_ffi.register_global_func("tvm_callback_cuda_postproc", to_ptx, override=True)


def compile_ptx(code: str, *, arch: str) -> bytes:
    """The PTX of CUDA C++ source. Raises `BuildError` (``cuda_compiler_missing``, or ``kernel_failed`` with the
    compiler's message in ``details``)."""
    nvrtc = _nvrtc()
    names = list(_HEADERS)
    program = _call(
        nvrtc,
        nvrtc.nvrtcCreateProgram,
        code.encode(),
        b"kernels.cu",
        len(names),
        [_HEADERS[name].encode() for name in names],
        names,
    )
    try:
        options = [f"--gpu-architecture={arch.replace('sm_', 'compute_')}".encode(), b"--std=c++17", b"--fmad=true"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytes(_call(nvrtc, nvrtc.nvrtcGetProgramLogSize, program))
            _call(nvrtc, nvrtc.nvrtcGetProgramLog, program, log)
            raise BuildError(
                f"CUDA kernels could not be compiled for {arch}.",
                code="kernel_failed",
                hint="The compiler's message is in the details; half precision is not supported yet.",
                details={"message": log.decode(errors="replace")[-2000:]},
            )
        ptx = bytes(_call(nvrtc, nvrtc.nvrtcGetPTXSize, program))
        _call(nvrtc, nvrtc.nvrtcGetPTX, program, ptx)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return ptx.rstrip(b"\0")


def _call(nvrtc: Any, function: Any, *arguments: Any) -> Any:
    status, *results = function(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BuildError(f"NVIDIA's runtime compiler answers {status.name}.", code="kernel_failed")
    return results[0] if results else None


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise BuildError(
            "There is no compiler for CUDA kernels on this machine.",
            code="cuda_compiler_missing",
            hint="Install NVIDIA's runtime compiler from PyPI: pip install 'tessera[cuda]'",
        ) from error
    return nvrtc
