"""letterbox.cu on the CPU: compiled by a C++ compiler, with CUDA's built-ins as plain functions and threads as loops.

What runs is the source that CUDA compiles. So its arithmetic is proven without a device; what it does not show is what
only a device can: that it compiles there, and how fast it is.
"""

import ctypes
import shutil
import subprocess

import pytest

from farm.models.yolo.letterbox_kernel import BITS, SOURCE, LetterboxKernel, table

BUILT_INS = """
#include <algorithm>
#include <cmath>
#include <cstring>
using std::max; using std::min;
#define __device__
#define __global__
#define __forceinline__ inline
struct Three { int x, y, z; };
static Three blockIdx, blockDim, threadIdx;
static double __dadd_rn(double a, double b) { return a + b; }
static double __dmul_rn(double a, double b) { return a * b; }
static float __double2float_rn(double a) { return (float)a; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static int __float2int_rd(float a) { return (int)std::floor(a); }
static int __float2int_rn(float a) { return (int)std::nearbyint(a); }
static double __longlong_as_double(long long a) { double b; std::memcpy(&b, &a, 8); return b; }
"""
LOOPS = """
#define EVERY_THREAD(call) blockDim = {block[0], block[1], block[2]}; \\
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z) for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y) \\
        for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x) \\
            for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x) call;
extern "C" void run_convert(const int* grid, const int* block, const void* a, const void* b, void* c, const int* n) {
    EVERY_THREAD(convert((const unsigned char*)a, (const OUT_T*)b, (OUT_T*)c, n[0], n[1], n[2], n[3], n[4]))
}
extern "C" void run_letterbox(const int* grid, const int* block, const void* a, const void* b, void* c, const int* n) {
    EVERY_THREAD(letterbox((const long long*)a, (const OUT_T*)b, (OUT_T*)c, n[0], n[1], n[2], n[3], n[4], n[5], n[6]))
}
"""
FLAGS = ("-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w")


def built(folder, half, change=lambda source: source):
    """The kernels for CPU tensors. `change`: makes another source of letterbox.cu's. Skips where no compiler is."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine: the kernel's source is not run")
    source = folder / f"kernel-{half}.cpp"
    library = source.with_suffix(".so")
    source.write_text(f"#define OUT_T {BITS[half]}\n{BUILT_INS}\n{change(SOURCE.read_text())}\n{LOOPS}")
    subprocess.run([compiler, *FLAGS, "-o", library, source], check=True, timeout=120)
    loaded = ctypes.CDLL(str(library))
    return LetterboxKernel(_launch(loaded.run_convert), _launch(loaded.run_letterbox), table("cpu", half))


def _launch(function):
    def launch(grid, block, args):
        tensors, numbers = args[:3], args[3:]
        assert all(type(number) is int for number in numbers), "torch passes nothing else"
        integers = [(ctypes.c_int * len(each))(*each) for each in (grid, block, numbers)]
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        function(*integers[:2], *pointers, integers[2])

    return launch
