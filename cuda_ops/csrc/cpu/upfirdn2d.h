// upfirdn2d on the CPU: along y into a row of the computing type, then along x out of it. The row stays in the
// cache, so that memory is read and written about once.
#pragma once
#include "run.h"

namespace isg::ISG_NS {
namespace {

int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }
int64_t floor_mod(int64_t a, int64_t b) { return ((a % b) + b) % b; }

// One axis: output o = r + up * m, for each residue r, is the sum over j < count(r) of
// coef(r)[j] * input[first(r) + down * m + j]. `up` and `down` have no common factor any more.
struct AxisPlan {
  int64_t in, out, up, down, pad, taps, start, step;  // tap j of what is left is tap start + step * j of the filter

  explicit AxisPlan(const UpfirdnAxis& a) : in(a.in), out(a.out) {
    // Only those taps ever meet a pixel whose place is a multiple of the common factor.
    step = gcd(a.up, a.down);
    up = a.up / step;
    down = a.down / step;
    start = floor_mod(a.pad, step);
    pad = (a.pad - start) / step;
    taps = start < a.taps ? (a.taps - start - 1) / step + 1 : 0;
  }
  int64_t phase(int64_t o) const { return floor_mod(pad - o * down, up); }
  int64_t first(int64_t o) const { return (o * down - pad + phase(o)) / up; }
  int64_t count(int64_t o) const { return phase(o) < taps ? (taps - phase(o) - 1) / up + 1 : 0; }
  int64_t most_taps() const { return taps ? (taps - 1) / up + 1 : 0; }
  int64_t lowest() const { return first(0); }
  int64_t highest() const { return first(out - 1) + most_taps(); }  // one beyond the last input that is used

  // filter(k) is the k-th of the axis's taps in the order of correlation; to[phase * most_taps() + j]
  template <class A, class F>
  void coefficients(F filter, A* to) const {
    const int64_t n = most_taps();
    for (int64_t p = 0; p < up; p++)
      for (int64_t j = 0; j < n; j++) {
        const int64_t k = p + up * j;
        to[p * n + j] = k < taps ? static_cast<A>(filter(start + step * k)) : A(0);
      }
  }
};

// ---- along y: rows of memory, each with its coefficient, into one row

template <class T, int N>
void combine_rows(const T* const* rows, const typename Memory<T>::Scalar* coef, int64_t n, int64_t length,
                  typename Memory<T>::Scalar* to) {
  using M = Memory<T>;
  using V = typename M::Vector;
  using A = Memory<typename M::Scalar>;
  const int64_t count = N >= 0 ? N : n;
  int64_t i = 0;
  for (; i + M::kLanes <= length; i += M::kLanes) {
    V sum = {};
    if (count) sum = M::load(rows[0] + i) * coef[0];
    for (int64_t j = 1; j < count; j++) sum += M::load(rows[j] + i) * coef[j];
    A::store(to + i, sum);
  }
  if (i < length) {
    const int left = static_cast<int>(length - i);
    V sum = {};
    if (count) sum = M::load_n(rows[0] + i, left) * coef[0];
    for (int64_t j = 1; j < count; j++) sum += M::load_n(rows[j] + i, left) * coef[j];
    A::store_n(to + i, sum, left);
  }
}

template <class T>
void combine(const T* const* rows, const typename Memory<T>::Scalar* coef, int64_t n, int64_t length,
             typename Memory<T>::Scalar* to) {
  switch (n) {
    case 1: return combine_rows<T, 1>(rows, coef, n, length, to);
    case 2: return combine_rows<T, 2>(rows, coef, n, length, to);
    case 3: return combine_rows<T, 3>(rows, coef, n, length, to);
    case 4: return combine_rows<T, 4>(rows, coef, n, length, to);
    default: return combine_rows<T, -1>(rows, coef, n, length, to);
  }
}

// ---- along x: a row of the computing type into a row of memory

template <class S>
struct RowOfOne {  // what the outputs of one residue need
  const S* from;   // where output m = 0 begins to read
  const S* coef;
  int64_t count;
};

template <int N, class V, class S>
ISG_INLINE V dot(const S* from, const S* coef, int64_t n) {
  using A = Memory<S>;
  const int64_t count = N >= 0 ? N : n;
  V sum = {};
  if (count) sum = A::load(from) * coef[0];
  for (int64_t j = 1; j < count; j++) sum += A::load(from + j) * coef[j];
  return sum;
}

template <class T, int N>
void along_x_same(const RowOfOne<typename Memory<T>::Scalar>& r, T* to, int64_t out, bool streaming) {
  using M = Memory<T>;
  using V = typename M::Vector;
  int64_t o = 0;
  for (; o + M::kLanes <= out; o += M::kLanes) put(to + o, dot<N, V>(r.from + o, r.coef, r.count), streaming);
  if (o < out) M::store_n(to + o, dot<N, V>(r.from + o, r.coef, r.count), static_cast<int>(out - o));
}

template <int N, class V, class S>
ISG_INLINE V dot_pairs(const S* from, const S* coef, int64_t n) {
  using A = Memory<S>;
  const int64_t count = N >= 0 ? N : n;
  V sum = {};
  for (int64_t j = 0; j < count; j += 2) {
    const V a = A::load(from + j), b = A::load(from + j + A::kLanes);
    sum += evens(a, b) * coef[j];
    if (j + 1 < count) sum += odds(a, b) * coef[j + 1];
  }
  return sum;
}

template <class T, int N>
void along_x_down(const RowOfOne<typename Memory<T>::Scalar>& r, T* to, int64_t out, bool streaming) {
  using M = Memory<T>;
  using V = typename M::Vector;
  int64_t o = 0;
  for (; o + M::kLanes <= out; o += M::kLanes) put(to + o, dot_pairs<N, V>(r.from + 2 * o, r.coef, r.count), streaming);
  if (o < out) M::store_n(to + o, dot_pairs<N, V>(r.from + 2 * o, r.coef, r.count), static_cast<int>(out - o));
}

template <class T, int N0, int N1>
void along_x_up(const RowOfOne<typename Memory<T>::Scalar>& r0, const RowOfOne<typename Memory<T>::Scalar>& r1, T* to,
                int64_t out, bool streaming) {
  using M = Memory<T>;
  using V = typename M::Vector;
  constexpr int64_t kLanes = M::kLanes;
  for (int64_t m = 0; 2 * m < out; m += kLanes) {
    const V even = dot<N0, V>(r0.from + m, r0.coef, r0.count), odd = dot<N1, V>(r1.from + m, r1.coef, r1.count);
    const V low = interleave_low(even, odd), high = interleave_high(even, odd);
    const int64_t left = out - 2 * m;
    T* at = to + 2 * m;
    if (left >= 2 * kLanes) {
      put(at, low, streaming);
      put(at + kLanes, high, streaming);
    } else {
      if (left >= kLanes) M::store(at, low);
      else M::store_n(at, low, static_cast<int>(left));
      if (left > kLanes) M::store_n(at + kLanes, high, static_cast<int>(left - kLanes));
    }
  }
}

template <class T>
ISG_INLINE void put_one(T* p, typename Memory<T>::Scalar s) {
  Memory<T>::store_n(p, splat(s), 1);
}

// Any factors: scalar, one residue after the other.
template <class T>
void along_x_any(const RowOfOne<typename Memory<T>::Scalar>& r, T* to, int64_t outs, int64_t up, int64_t down) {
  using S = typename Memory<T>::Scalar;
  for (int64_t m = 0; m < outs; m++) {
    const S* from = r.from + m * down;
    S sum = 0;
    for (int64_t j = 0; j < r.count; j++) sum += from[j] * r.coef[j];
    put_one(to + m * up, sum);
  }
}

// Channels-last: each tap is a vector of channels.
template <class T, int N>
void along_x_pixels(const RowOfOne<typename Memory<T>::Scalar>& r, T* to, int64_t outs, int64_t to_step,
                    int64_t from_step, int64_t channels, bool streaming) {
  using M = Memory<T>;
  using V = typename M::Vector;
  using A = Memory<typename M::Scalar>;
  const int64_t count = N >= 0 ? N : r.count;
  for (int64_t m = 0; m < outs; m++) {
    const auto* from = r.from + m * from_step;
    T* at = to + m * to_step;
    for (int64_t c = 0; c < channels; c += M::kLanes) {
      V sum = {};  // the row has room to be read beyond its end
      if (count) sum = A::load(from + c) * r.coef[0];
      for (int64_t j = 1; j < count; j++) sum += A::load(from + j * channels + c) * r.coef[j];
      if (c + M::kLanes <= channels) put(at + c, sum, streaming);
      else M::store_n(at + c, sum, static_cast<int>(channels - c));
    }
  }
}

#define ISG_BY_COUNT(n, CALL) \
  switch (n) {                \
    case 1: CALL(1); break;   \
    case 2: CALL(2); break;   \
    case 3: CALL(3); break;   \
    case 4: CALL(4); break;   \
    default: CALL(-1);        \
  }

// The whole pass along x, out of a row that holds input x.lowest() at its start.
template <class T>
class AlongX {
  using S = typename Memory<T>::Scalar;
  const AxisPlan x;
  const int64_t channels, taps, residues;
  Scratch<int64_t> from, coef, count;  // of each residue

 public:
  AlongX(const AxisPlan& axis, int64_t channels_)
      : x(axis), channels(channels_), taps(x.most_taps()), residues(least(x.up, x.out)),
        from(residues), coef(residues), count(residues) {
    for (int64_t r = 0; r < residues; r++) {
      from.data[r] = (x.first(r) - x.lowest()) * channels;
      coef.data[r] = x.phase(r) * taps;
      count.data[r] = x.count(r);
    }
  }

  void operator()(const S* row, const S* coefficients, T* to, bool streaming) const {
    const auto residue = [&](int64_t r) {
      return RowOfOne<S>{row + from.data[r], coefficients + coef.data[r], count.data[r]};
    };
    if (channels == 1 && x.up == 1 && x.down <= 2) {
      const RowOfOne<S> r = residue(0);
#define ISG_SAME(N) along_x_same<T, N>(r, to, x.out, streaming)
#define ISG_DOWN(N) along_x_down<T, N>(r, to, x.out, streaming)
      if (x.down == 1) { ISG_BY_COUNT(r.count, ISG_SAME) } else { ISG_BY_COUNT(r.count, ISG_DOWN) }
      return;
    }
    if (channels == 1 && x.up == 2 && x.down == 1 && residues == 2) {
      const RowOfOne<S> r0 = residue(0), r1 = residue(1);
      if (r0.count == 2 && r1.count == 2) along_x_up<T, 2, 2>(r0, r1, to, x.out, streaming);
      else if (r0.count == 2 && r1.count == 1) along_x_up<T, 2, 1>(r0, r1, to, x.out, streaming);
      else if (r0.count == 1 && r1.count == 2) along_x_up<T, 1, 2>(r0, r1, to, x.out, streaming);
      else along_x_up<T, -1, -1>(r0, r1, to, x.out, streaming);
      return;
    }
    for (int64_t i = 0; i < residues; i++) {
      const RowOfOne<S> r = residue(i);
      const int64_t outs = ceil_div(x.out - i, x.up);
      if (channels == 1) {
        along_x_any(r, to + i, outs, x.up, x.down);
      } else {
#define ISG_PIXELS(N) \
  along_x_pixels<T, N>(r, to + i * channels, outs, x.up * channels, x.down * channels, channels, streaming)
        ISG_BY_COUNT(r.count, ISG_PIXELS)
      }
    }
  }
};

// ---- the filter

// Writes f [fh, fw] as the outer product of two vectors, if it is one but for rounding.
bool split(const float* f, int64_t fh, int64_t fw, double tolerance, double* fy, double* fx) {
  int64_t at = 0;
  double top = 0;
  for (int64_t i = 0; i < fh * fw; i++)
    if (__builtin_fabs(f[i]) > top) {
      top = __builtin_fabs(f[i]);
      at = i;
    }
  if (top == 0 || top - top != 0) return false;  // zero, infinite or NaN
  for (int64_t i = 0; i < fh; i++) fy[i] = f[i * fw + at % fw];
  for (int64_t j = 0; j < fw; j++) fx[j] = f[at / fw * fw + j] / static_cast<double>(f[at]);
  for (int64_t i = 0; i < fh; i++)
    for (int64_t j = 0; j < fw; j++)
      if (!(__builtin_fabs(fy[i] * fx[j] - f[i * fw + j]) <= tolerance * top)) return false;
  return true;
}

// ---- all together

template <class T>
int32_t upfirdn2d_typed(const Upfirdn2d& p) {
  using M = Memory<T>;
  using S = typename M::Scalar;
  const AxisPlan x(p.ax), y(p.ay);
  const int64_t fh = p.ay.taps, fw = p.ax.taps;

  // An image [N, C, H, W] is a batch of planes; a channels-last one has pixels of C numbers.
  const int64_t planes = p.channels_last ? p.n : p.n * p.channels, channels = p.channels_last ? p.channels : 1;

  Scratch<double> tap_memory(fh + fw);
  double *fy = tap_memory.data, *fx = fy + fh;
  bool separable = p.separable;
  if (separable) {
    for (int64_t i = 0; i < fw; i++) fy[i] = fx[i] = p.f[i];
  } else {
    // For double the product of the vectors must be as exact as the filter.
    separable = split(p.f, fh, fw, sizeof(S) == 8 ? 1e-15 : 3e-7, fy, fx);
  }
  const int64_t nx = x.most_taps(), ny = y.most_taps(), rows_of_filter = separable ? 1 : fh;
  Scratch<S> coef_memory(most(1, x.up * nx * rows_of_filter) + most(1, y.up * ny));
  S *cx = coef_memory.data, *cy = cx + most(1, x.up * nx * rows_of_filter);
  if (separable) {
    x.coefficients([&](int64_t k) { return fx[p.flip ? k : fw - 1 - k] * p.gain; }, cx);
    y.coefficients([&](int64_t k) { return fy[p.flip ? k : fh - 1 - k]; }, cy);
  } else {
    for (int64_t i = 0; i < fh; i++) {
      const float* row = p.f + (p.flip ? i : fh - 1 - i) * fw;
      x.coefficients([&](int64_t k) { return row[p.flip ? k : fw - 1 - k] * p.gain; }, cx + i * x.up * nx);
    }
  }

  Scratch<int64_t> y_first(y.out), y_phase(y.out), y_count(y.out);  // divisions, once for all planes
  for (int64_t o = 0; o < y.out; o++) {
    y_first.data[o] = y.first(o);
    y_phase.data[o] = y.phase(o);
    y_count.data[o] = y.count(o);
  }

  const int64_t low = x.lowest(), high = x.highest();                   // columns that are read,
  const int64_t begin = most(0, low), end = most(begin, least(x.in, high));  // and which of them exist
  // A vector may be read beyond the end of a row, two where every other number counts; the first even as a whole.
  const int64_t row_size = (most(high - low, 1) + 2) * channels + 4 * kFloats * most(1, x.down);
  const int64_t out_row = x.out * channels;

  const int64_t chunk = most(1, least(y.out, 8192 / most(1, out_row)));  // rows of one piece of work
  const int64_t chunks = ceil_div(y.out, chunk);
  const T* const in = static_cast<const T*>(p.x);
  T* const out = static_cast<T*>(p.y);
  const int64_t bytes = planes * y.out * out_row * static_cast<int64_t>(sizeof(T));
  const bool streaming = may_stream(out, (p.channels_last ? channels : out_row) * static_cast<int64_t>(sizeof(T)), bytes);

  parallel(planes * chunks, ceil_div(16384, chunk * out_row), [&](int64_t from, int64_t to) {
    const AlongX<T> along_x(x, channels);
    const AlongX<S> along_x_plain(x, channels);
    Scratch<S> row_memory(row_size), sum_memory(separable ? 1 : 2 * (out_row + kFloats));
    Scratch<S> row_coef(most(1, ny));
    Scratch<const T*> rows(most(1, ny));
    S* const row = row_memory.data + (begin - low) * channels;
    for (int64_t piece = from; piece < to; piece++) {
      const int64_t plane = piece / chunks, oy_begin = piece % chunks * chunk;
      const T* const image = in + (plane * y.in * x.in + begin) * channels;
      for (int64_t oy = oy_begin; oy < least(y.out, oy_begin + chunk); oy++) {
        T* const to_row = out + (plane * y.out + oy) * out_row;
        const int64_t first = y_first.data[oy], phase = y_phase.data[oy], count = y_count.data[oy];
        // Rows outside the image are zero.
        const int64_t j0 = most(0, -first), j1 = least(count, y.in - first);
        if (separable) {
          int64_t n = 0;
          for (int64_t j = j0; j < j1; j++, n++) {
            rows.data[n] = image + (first + j) * x.in * channels;
            row_coef.data[n] = cy[phase * ny + j];
          }
          combine<T>(rows.data, row_coef.data, n, (end - begin) * channels, row);
          along_x(row_memory.data, cx, to_row, streaming);
          continue;
        }
        S *const sum = sum_memory.data, *const part = sum + out_row + kFloats;
        memset(sum, 0, static_cast<size_t>(out_row) * sizeof(S));
        for (int64_t j = j0; j < j1; j++) {
          const S one = 1;
          const T* const only = image + (first + j) * x.in * channels;
          combine<T>(&only, &one, 1, (end - begin) * channels, row);
          const int64_t tap = y.start + y.step * (phase + y.up * j);
          along_x_plain(row_memory.data, cx + tap * x.up * nx, part, false);
          for (int64_t i = 0; i < out_row; i++) sum[i] += part[i];
        }
        int64_t i = 0;
        for (; i + M::kLanes <= out_row; i += M::kLanes) M::store(to_row + i, Memory<S>::load(sum + i));
        if (i < out_row) M::store_n(to_row + i, Memory<S>::load(sum + i), static_cast<int>(out_row - i));
      }
    }
    if (streaming) stream_fence();
  });
  return kOk;
}

}  // namespace

int32_t upfirdn2d(const Upfirdn2d& p, DType dtype, void*) {
  switch (dtype) {
    case DType::f32: return upfirdn2d_typed<float>(p);
    case DType::f16: return upfirdn2d_typed<Half>(p);
    case DType::bf16: return upfirdn2d_typed<BFloat16>(p);
    case DType::f64: return upfirdn2d_typed<double>(p);
  }
  return kUnsupportedDType;
}

}  // namespace isg::ISG_NS
