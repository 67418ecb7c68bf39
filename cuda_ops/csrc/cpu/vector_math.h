// Functions of whole vectors of floats, to within about 2 ulp, and the same names for a single double.
#pragma once
#include "simd.h"

namespace isg::ISG_NS {
namespace {

// 2^n as two factors, so that results beyond the range become inf, and those below it subnormal or 0.
struct Reduced {
  VF p;  // e^r - 1 for the rest r, |r| <= ln(2) / 2
  VF scale0, scale1;
};

ISG_INLINE Reduced reduce_exp(VF x) {
  x = x > 100.0f ? splat(100.0f) : x;
  x = x < -110.0f ? splat(-110.0f) : x;
  // Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits.
  const VF shifted = x * 1.44269504088896341f + 12582912.0f;
  const VF n = shifted - 12582912.0f;
  const VI k = bits_as<VI>(shifted) - 0x4b400000;
  const VF r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln(2) in two parts, the first with few bits
  VF p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r;
  const VI half = k >> 1;
  return {p, bits_as<VF>((half + 127) << 23), bits_as<VF>((k - half + 127) << 23)};
}

template <class V>
struct Exponential {
  V exp, expm1;  // each to full relative precision
};
ISG_INLINE Exponential<VF> exponential(VF x) {
  const Reduced e = reduce_exp(x);
  const VF scale = e.scale0 * e.scale1;
  return {(e.p + 1.0f) * e.scale0 * e.scale1, scale * e.p + (scale - 1.0f)};
}
// For z in [0, 1]: 2 atanh(z / (2 + z)).
ISG_INLINE VF log1p_of(VF z) {
  const VF s = z / (z + 2.0f), q = s * s;
  VF p = q * (1.0f / 17) + 1.0f / 15;
  p = p * q + 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  return 2.0f * (s + s * q * p);
}
ISG_INLINE VF abs_of(VF x) { return bits_as<VF>(bits_as<VU>(x) & 0x7fffffff); }

// Within [-limit, limit]; NaN stays NaN, as the second argument of these instructions.
ISG_INLINE VF clamped(VF x, float limit) {
#if defined(ISG_SIMD_avx512)
  const __m512 low = bits_as<__m512>(splat(-limit)), high = bits_as<__m512>(splat(limit));
  return bits_as<VF>(_mm512_max_ps(low, _mm512_min_ps(high, bits_as<__m512>(x))));
#elif defined(ISG_SIMD_avx2)
  const __m256 low = bits_as<__m256>(splat(-limit)), high = bits_as<__m256>(splat(limit));
  return bits_as<VF>(_mm256_max_ps(low, _mm256_min_ps(high, bits_as<__m256>(x))));
#else
  x = x > limit ? splat(limit) : x;
  return x < -limit ? splat(-limit) : x;
#endif
}

ISG_INLINE double clamped(double x, double limit) { return x > limit ? limit : x < -limit ? -limit : x; }
ISG_INLINE Exponential<double> exponential(double x) { return {__builtin_exp(x), __builtin_expm1(x)}; }
ISG_INLINE double log1p_of(double x) { return __builtin_log1p(x); }
ISG_INLINE double abs_of(double x) { return __builtin_fabs(x); }

// A constant as a vector, or as itself.
template <class V, class S>
ISG_INLINE V constant(S s) { return s - V{}; }

}  // namespace
}  // namespace isg::ISG_NS
