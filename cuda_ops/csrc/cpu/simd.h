// Vectors of one instruction set. This file and those that include it are compiled once for each set, with the
// flags of that set. So everything here is in an anonymous namespace and no standard header with inline functions
// may be included: the linker keeps one copy of such a function, which could be one that the machine can't run.
#pragma once
#include <stdint.h>
#include <string.h>

#include "../ops.h"
#include "machine.h"

#if defined(ISG_SIMD_avx512)
#include <immintrin.h>
#define ISG_NS cpu_avx512
#define ISG_BYTES 64
#elif defined(ISG_SIMD_avx2)
#include <immintrin.h>
#define ISG_NS cpu_avx2
#define ISG_BYTES 32
#else
#define ISG_NS cpu_base
#define ISG_BYTES 16
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#endif

#define ISG_INLINE inline __attribute__((always_inline))

namespace isg::ISG_NS {
namespace {

constexpr int kFloats = ISG_BYTES / 4, kDoubles = ISG_BYTES / 8;

typedef float VF __attribute__((vector_size(ISG_BYTES)));
typedef int32_t VI __attribute__((vector_size(ISG_BYTES)));
typedef uint32_t VU __attribute__((vector_size(ISG_BYTES)));
typedef double VD __attribute__((vector_size(ISG_BYTES)));
typedef uint16_t VH __attribute__((vector_size(ISG_BYTES / 2)));  // as many as floats in a VF

struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

template <class To, class From>
ISG_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class V, class P>
ISG_INLINE V load_raw(const P* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

ISG_INLINE VF splat(float s) { return s - VF{}; }
ISG_INLINE VD splat(double s) { return s - VD{}; }

// ---- half types to float and back; round to nearest even, NaN stays NaN, subnormals are kept (but by AVX512-BF16, which
// writes 0 for those of bfloat16)

// GCC makes several instructions of these conversions where the machine has one.
#if defined(ISG_SIMD_avx512)
ISG_INLINE VU widened(VH h) { return bits_as<VU>(_mm512_cvtepu16_epi32(bits_as<__m256i>(h))); }
#elif defined(ISG_SIMD_avx2)
ISG_INLINE VU widened(VH h) { return bits_as<VU>(_mm256_cvtepu16_epi32(bits_as<__m128i>(h))); }
ISG_INLINE VH narrowed(VU u) { return __builtin_convertvector(u, VH); }
#else
ISG_INLINE VU widened(VH h) { return __builtin_convertvector(h, VU); }
ISG_INLINE VH narrowed(VU u) { return __builtin_convertvector(u, VH); }
#endif

#if defined(ISG_SIMD_avx512)
ISG_INLINE VF widen(BFloat16, VH h) {  // as below, in one instruction
  const __m512i twice = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4,
                                         4, 3, 3, 2, 2, 1, 1, 0, 0);
  return bits_as<VF>(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, twice, _mm512_castsi256_si512(bits_as<__m256i>(h))));
}
#else
ISG_INLINE VF widen(BFloat16, VH h) { return bits_as<VF>(widened(h) << 16); }
#endif

#if defined(ISG_SIMD_avx512)
// The conversions of AVX512-BF16, for machines that have it. In assembly: the compiler need not know them, and
// can't move them to where other machines would meet them.
ISG_INLINE __m256i narrowed_natively(VF v) {
  __m256i h;
  asm volatile("vcvtneps2bf16 %1, %0" : "=v"(h) : "v"(bits_as<__m512>(v)));
  return h;
}
ISG_INLINE __m512i narrowed_natively(VF first, VF second) {
  __m512i h;
  asm volatile("vcvtne2ps2bf16 %2, %1, %0" : "=v"(h) : "v"(bits_as<__m512>(second)), "v"(bits_as<__m512>(first)));
  return h;
}
#endif

// The number rounded to bfloat16, which is the upper half of each lane; the lower is anything.
#if defined(ISG_SIMD_avx512)
ISG_INLINE VU rounded(VF v) {  // as below; without masks, of which there are few
  const VU u = bits_as<VU>(v);
  const VU r = u + 0x7fff + (u >> 16 & 1);
  const __m512i quiet_nan = _mm512_set1_epi32(0x22);  // of v, where it is one of either kind
  return bits_as<VU>(_mm512_fixupimm_ps(bits_as<__m512>(r), bits_as<__m512>(v), quiet_nan, 0));
}
ISG_INLINE VH narrow(BFloat16, VF v) {
  if (cpu::rounds_to_bfloat16) return bits_as<VH>(narrowed_natively(v));
  const __m512i upper_halves = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 31, 29, 27, 25,
                                                23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return bits_as<VH>(_mm512_castsi512_si256(_mm512_permutexvar_epi16(upper_halves, bits_as<__m512i>(rounded(v)))));
}
#else
ISG_INLINE VU rounded(VF v) {
  const VU u = bits_as<VU>(v);
  return v != v ? u | 0x400000 : u + 0x7fff + ((u >> 16) & 1);
}
ISG_INLINE VH narrow(BFloat16, VF v) { return narrowed(rounded(v) >> 16); }
#endif

#if defined(ISG_SIMD_avx512)
ISG_INLINE VF widen(Half, VH h) { return bits_as<VF>(_mm512_cvtph_ps(bits_as<__m256i>(h))); }
ISG_INLINE VH narrow(Half, VF v) {
  return bits_as<VH>(_mm512_cvtps_ph(bits_as<__m512>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(ISG_SIMD_avx2)
ISG_INLINE VF widen(Half, VH h) { return bits_as<VF>(_mm256_cvtph_ps(bits_as<__m128i>(h))); }
ISG_INLINE VH narrow(Half, VF v) {
  return bits_as<VH>(_mm256_cvtps_ph(bits_as<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
}
#else
ISG_INLINE VF widen(Half, VH h) {
  const VU u = widened(h);
  const VU magnitude = (u & 0x7fff) << 13;
  // The product moves the exponent to float's bias, and makes normal numbers of subnormal ones.
  const VU finite = bits_as<VU>(bits_as<VF>(magnitude) * 0x1p112f);
  return bits_as<VF>((magnitude >= 0x0f800000u ? magnitude | 0x7f800000 : finite) | ((u & 0x8000) << 16));
}
ISG_INLINE VH narrow(Half, VF v) {
  const VU u = bits_as<VU>(v), magnitude = u & 0x7fffffff;
  // Below the least normal half: adding 0.5 leaves the half's bits in the low end of the sum, rounded by the adder.
  const VU tiny = bits_as<VU>(bits_as<VF>(magnitude) + 0.5f) - 0x3f000000;
  const VU normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  VU h = magnitude < 0x38800000u ? tiny : normal;
  h = magnitude >= 0x477ff000u ? VU{} + 0x7c00 : h;
  h = magnitude > 0x7f800000u ? VU{} + 0x7e00 : h;
  return narrowed(h | ((u >> 16) & 0x8000));
}
#endif

// ---- the memory type T: what it is computed in, and how a vector of that is read and written

template <class T>
struct Memory;

#if defined(ISG_SIMD_avx512)
ISG_INLINE uint16_t lanes_up_to(int n) { return static_cast<uint16_t>((1u << n) - 1); }
#endif

template <>
struct Memory<float> {
  using Scalar = float;
  using Vector = VF;
  static constexpr int kLanes = kFloats;
  static ISG_INLINE VF load(const float* p) { return load_raw<VF>(p); }
  static ISG_INLINE void store(float* p, VF v) { memcpy(p, &v, sizeof v); }
#if defined(ISG_SIMD_avx512)
  static ISG_INLINE VF load_masked(const float* p, uint16_t lanes) {
    return bits_as<VF>(_mm512_maskz_loadu_ps(lanes, p));
  }
  static ISG_INLINE VF load_n(const float* p, int n) {
    return load_masked(p, lanes_up_to(n));
  }
  static ISG_INLINE void store_n(float* p, VF v, int n) {
    _mm512_mask_storeu_ps(p, lanes_up_to(n), bits_as<__m512>(v));
  }
#else
  static ISG_INLINE VF load_n(const float* p, int n) {
    VF v = {};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
  }
  static ISG_INLINE void store_n(float* p, VF v, int n) {
    for (int i = 0; i < n; i++) p[i] = v[i];
  }
#endif
};

template <>
struct Memory<double> {
  using Scalar = double;
  using Vector = VD;
  static constexpr int kLanes = kDoubles;
  static ISG_INLINE VD load(const double* p) { return load_raw<VD>(p); }
  static ISG_INLINE void store(double* p, VD v) { memcpy(p, &v, sizeof v); }
  static ISG_INLINE VD load_n(const double* p, int n) {
    VD v = {};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
  }
  static ISG_INLINE void store_n(double* p, VD v, int n) {
    for (int i = 0; i < n; i++) p[i] = v[i];
  }
};

template <class T>
struct HalfMemory {
  using Scalar = float;
  using Vector = VF;
  static constexpr int kLanes = kFloats;
  static ISG_INLINE VF load(const T* p) { return widen(T{}, load_raw<VH>(p)); }
  static ISG_INLINE void store(T* p, VF v) {
    const VH h = narrow(T{}, v);
    memcpy(p, &h, sizeof h);
  }
#if defined(ISG_SIMD_avx512)
  static ISG_INLINE VF load_masked(const T* p, uint16_t lanes) {
    return widen(T{}, bits_as<VH>(_mm256_maskz_loadu_epi16(lanes, p)));
  }
  static ISG_INLINE VF load_n(const T* p, int n) {
    return load_masked(p, lanes_up_to(n));
  }
  static ISG_INLINE void store_n(T* p, VF v, int n) {
    _mm256_mask_storeu_epi16(p, lanes_up_to(n), bits_as<__m256i>(narrow(T{}, v)));
  }
#else
  static ISG_INLINE VF load_n(const T* p, int n) {
    VH h = {};
    for (int i = 0; i < n; i++) h[i] = p[i].bits;
    return widen(T{}, h);
  }
  static ISG_INLINE void store_n(T* p, VF v, int n) {
    const VH h = narrow(T{}, v);
    for (int i = 0; i < n; i++) p[i].bits = h[i];
  }
#endif
};
template <> struct Memory<Half> : HalfMemory<Half> {};
template <> struct Memory<BFloat16> : HalfMemory<BFloat16> {};

// ---- stores past the cache, for results too large to be found there again; p aligned to the vector

ISG_INLINE void stream(float* p, VF v) {
#if defined(ISG_SIMD_avx512)
  _mm512_stream_ps(p, bits_as<__m512>(v));
#elif defined(ISG_SIMD_avx2)
  _mm256_stream_ps(p, bits_as<__m256>(v));
#elif defined(__SSE2__)
  _mm_stream_ps(p, bits_as<__m128>(v));
#else
  memcpy(p, &v, sizeof v);
#endif
}
ISG_INLINE void stream(double* p, VD v) { stream(reinterpret_cast<float*>(p), bits_as<VF>(v)); }
template <class T>
ISG_INLINE void stream(T* p, VF v) {
  const VH h = narrow(T{}, v);
#if defined(ISG_SIMD_avx512)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), bits_as<__m256i>(h));
#elif defined(ISG_SIMD_avx2)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), bits_as<__m128i>(h));
#else
  memcpy(p, &h, sizeof h);
#endif
}
ISG_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class T>
ISG_INLINE void put(T* p, typename Memory<T>::Vector v, bool streaming) {
  if (streaming) stream(p, v);
  else Memory<T>::store(p, v);
}

// Two numbers of bfloat16 are the halves of one lane of a vector, which parts into those of even and those of odd places
// without a shuffle.
constexpr bool comes_in_pairs(BFloat16) { return true; }
template <class T>
constexpr bool comes_in_pairs(T) { return false; }
ISG_INLINE VF lower_halves(const BFloat16* p) { return bits_as<VF>(load_raw<VU>(p) << 16); }
ISG_INLINE VF upper_halves(const BFloat16* p) { return bits_as<VF>(load_raw<VU>(p) & 0xffff0000u); }
ISG_INLINE VF halves(VF lower, VF upper) {
#if defined(ISG_SIMD_avx512)
  if (cpu::rounds_to_bfloat16) {
    const __m512i places = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                            5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return bits_as<VF>(_mm512_permutexvar_epi16(places, narrowed_natively(lower, upper)));
  }
#endif
  return bits_as<VF>(rounded(lower) >> 16 | (rounded(upper) & 0xffff0000u));
}
ISG_INLINE void put_halves(BFloat16* p, VF lower, VF upper, bool streaming) {
  const VF both = halves(lower, upper);
  if (streaming) stream(reinterpret_cast<float*>(p), both);
  else memcpy(p, &both, sizeof both);
}

// From so many bytes on a result is written past the cache: else each line of it would first be read, and the
// input be thrown out. Measured on a cache of 32 MiB; a smaller result may still be found there by its reader.
constexpr int64_t kStreamBytes = int64_t{4} << 20;

ISG_INLINE bool may_stream(const void* p, int64_t row_bytes, int64_t total_bytes) {
  return total_bytes >= kStreamBytes && reinterpret_cast<uintptr_t>(p) % ISG_BYTES == 0 && row_bytes % ISG_BYTES == 0;
}

// ---- shuffles for factors of 2

#if defined(__clang__) || __GNUC__ >= 12
#define ISG_SHUFFLE(Mask, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ISG_SHUFFLE(Mask, a, b, ...) __builtin_shuffle(a, b, (Mask{__VA_ARGS__}))
#endif
typedef int64_t VL __attribute__((vector_size(ISG_BYTES)));

#if ISG_BYTES == 64
#define ISG_F_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ISG_F_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define ISG_F_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ISG_F_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define ISG_F_NEXT(k) ISG_D_NEXT(k), k + 8, k + 9, k + 10, k + 11, k + 12, k + 13, k + 14, k + 15
#define ISG_D_NEXT(k) k, k + 1, k + 2, k + 3, k + 4, k + 5, k + 6, k + 7
#define ISG_D_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ISG_D_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define ISG_D_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ISG_D_ODD 1, 3, 5, 7, 9, 11, 13, 15
#elif ISG_BYTES == 32
#define ISG_F_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ISG_F_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define ISG_F_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ISG_F_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define ISG_F_NEXT(k) k, k + 1, k + 2, k + 3, k + 4, k + 5, k + 6, k + 7
#define ISG_D_NEXT(k) k, k + 1, k + 2, k + 3
#define ISG_D_LOW 0, 4, 1, 5
#define ISG_D_HIGH 2, 6, 3, 7
#define ISG_D_EVEN 0, 2, 4, 6
#define ISG_D_ODD 1, 3, 5, 7
#else
#define ISG_F_LOW 0, 4, 1, 5
#define ISG_F_HIGH 2, 6, 3, 7
#define ISG_F_EVEN 0, 2, 4, 6
#define ISG_F_ODD 1, 3, 5, 7
#define ISG_F_NEXT(k) k, k + 1, k + 2, k + 3
#define ISG_D_NEXT(k) k, k + 1
#define ISG_D_LOW 0, 2
#define ISG_D_HIGH 1, 3
#define ISG_D_EVEN 0, 2
#define ISG_D_ODD 1, 3
#endif

ISG_INLINE VF interleave_low(VF a, VF b) { return ISG_SHUFFLE(VI, a, b, ISG_F_LOW); }
ISG_INLINE VF interleave_high(VF a, VF b) { return ISG_SHUFFLE(VI, a, b, ISG_F_HIGH); }
ISG_INLINE VF evens(VF a, VF b) { return ISG_SHUFFLE(VI, a, b, ISG_F_EVEN); }
ISG_INLINE VF odds(VF a, VF b) { return ISG_SHUFFLE(VI, a, b, ISG_F_ODD); }
ISG_INLINE VD interleave_low(VD a, VD b) { return ISG_SHUFFLE(VL, a, b, ISG_D_LOW); }
ISG_INLINE VD interleave_high(VD a, VD b) { return ISG_SHUFFLE(VL, a, b, ISG_D_HIGH); }
ISG_INLINE VD evens(VD a, VD b) { return ISG_SHUFFLE(VL, a, b, ISG_D_EVEN); }
ISG_INLINE VD odds(VD a, VD b) { return ISG_SHUFFLE(VL, a, b, ISG_D_ODD); }

// What begins K lanes further on in memory, where b follows a.
template <int K>
ISG_INLINE VF ahead_by(VF a, VF b) {
  if constexpr (K == 0) return a;
  else return ISG_SHUFFLE(VI, a, b, ISG_F_NEXT(K));
}
template <int K>
ISG_INLINE VD ahead_by(VD a, VD b) {
  if constexpr (K == 0) return a;
  else return ISG_SHUFFLE(VL, a, b, ISG_D_NEXT(K));
}

#if defined(ISG_SIMD_avx512)
// Lane i is number index[i] of a, or 0 where `lanes` has no bit i.
ISG_INLINE VF pick(VF a, VI index, uint16_t lanes) {
  return bits_as<VF>(_mm512_maskz_permutexvar_ps(lanes, bits_as<__m512i>(index), bits_as<__m512>(a)));
}
// Lane i is number index[i] of a followed by b, or 0 where `lanes` has no bit i.
ISG_INLINE VF pick(VF a, VF b, VI index, uint16_t lanes) {
  return bits_as<VF>(
      _mm512_maskz_permutex2var_ps(lanes, bits_as<__m512>(a), bits_as<__m512i>(index), bits_as<__m512>(b)));
}
#endif

// f(0), f(1), ... without a loop for a fixed N, with one up to n if N is -1.
template <int N, int J = 0, class F>
ISG_INLINE void for_each(int64_t n, F f) {
  if constexpr (N < 0) {
    for (int64_t j = 0; j < n; j++) f(j);
  } else if constexpr (J < N) {
    f(int64_t{J});
    for_each<N, J + 1>(n, f);
  }
}

template <auto value_>
struct Constant { static constexpr auto value = value_; };

ISG_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
ISG_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
ISG_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
}  // namespace isg::ISG_NS
