// What the kernel files share, and the only place that knows whether nvcc or a host C++ compiler reads them.
#pragma once
#include <cstdint>

#if defined(ISG_EMULATED)
#include "cuda_emu.h"  // tests/cuda_ops/harness: the same source, run thread by thread on the CPU
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Shared memory is declared through this macro, so that the emulator can give every block its own guarded copy.
#define ISG_SHARED(T, name, dims) __shared__ T name dims

namespace isg {
template <class... P, class... A>
inline int32_t launch(void (*kernel)(P...), dim3 grid, dim3 block, void* stream, const A&... args) {
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(args...);
  return static_cast<int32_t>(cudaGetLastError());
}
}  // namespace isg
#endif

// The tests lower this, so that splitting a large tensor into launches is tested with small ones.
#ifndef ISG_MAX_ELEMENTS
#define ISG_MAX_ELEMENTS (int64_t(1) << 30)
#endif

namespace isg {
namespace {

constexpr int kThreads = 256;
// Blocks of so many threads that fill a multiprocessor; asking for more is an error.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kFullBlocks = 4;
#elif defined(__CUDA_ARCH__) && (__CUDA_ARCH__ / 10 == 86 || __CUDA_ARCH__ / 10 == 87 || __CUDA_ARCH__ / 10 == 89 || __CUDA_ARCH__ >= 1200)
constexpr int kFullBlocks = 6;
#else
constexpr int kFullBlocks = 8;
#endif
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int64_t kMaxElements = ISG_MAX_ELEMENTS;  // of one launch: indices within it fit 32 bits

template <class T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};
template <class T>
using acc_t = typename AccOf<T>::type;

// Spelled out, as torch compiles with the conversion operators of the half types switched off.
__device__ __forceinline__ float to_acc(float v) { return v; }
__device__ __forceinline__ double to_acc(double v) { return v; }
__device__ __forceinline__ float to_acc(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_acc(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T from_acc(acc_t<T> v) {
  return v;
}
template <>
__device__ __forceinline__ __half from_acc<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_acc<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// W elements that one instruction loads or stores (two for four doubles).
template <class T, int W>
struct alignas(sizeof(T) * W < 16 ? sizeof(T) * W : 16) Pack {
  T v[W];
};

template <class T, int W>
inline bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % alignof(Pack<T, W>) == 0;
}

__host__ __device__ __forceinline__ int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Division of n < 2^31 by a number that the host knows: a multiplication and a shift.
struct Divisor {
  uint32_t d, mul, shift;
  explicit Divisor(int64_t value) : d(static_cast<uint32_t>(value)), mul(0), shift(0) {
    while ((uint64_t(1) << shift) < d) shift++;
    mul = static_cast<uint32_t>((((uint64_t(1) << shift) - d) << 32) / d + 1);
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const { return (__umulhi(n, mul) + n) >> shift; }
};

}  // namespace
}  // namespace isg
