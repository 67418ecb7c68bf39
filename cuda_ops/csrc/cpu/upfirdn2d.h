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

// Coefficients of taps, which stay in registers if their number is fixed.
template <int N, class V>
struct Taps {
  V c[N];
  template <class S>
  ISG_INLINE Taps(const S* coef, int64_t) {
    for_each<N>(N, [&](int64_t j) { c[j] = splat(coef[j]); });
  }
  ISG_INLINE V operator[](int64_t j) const { return c[j]; }
  // The sum of at(j) * tap j
  template <class F>
  ISG_INLINE V sum(F at) const {
    V total = at(0) * c[0];
    for_each<N, 1>(N, [&](int64_t j) __attribute__((always_inline)) { total += at(j) * c[j]; });
    return total;
  }
};
template <class V>
struct Taps<-1, V> {
  const decltype(V{}[0] + V{}[0])* coef;
  int64_t n;
  template <class S>
  ISG_INLINE Taps(const S* coef_, int64_t n_) : coef(coef_), n(n_) {}
  ISG_INLINE V operator[](int64_t j) const { return splat(coef[j]); }
  template <class F>
  ISG_INLINE V sum(F at) const {
    V total = {};
    for (int64_t j = 0; j < n; j++) total += at(j) * coef[j];
    return total;
  }
};

// ---- along y: rows of memory, each with its coefficient, into one row

ISG_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

template <class S>
struct RowPlan {   // what an output row is made of
  int64_t offset;  // of the first input row, in elements
  int64_t count;   // of input rows; those outside the image are left out, being zero
  const S* coef;
};

template <class S>
struct Columns {
  int64_t stride, length;  // of an input row, and how much of it is used
  int64_t ahead, down;     // see below
  S* to;                   // where the first output row goes,
  int64_t to_step;         // and how far the next
};

// For `rows` output rows that are made of equally many input rows. Ahead of what is read, what later rows will read
// is fetched: the processor foresees a walk along memory, not one along several rows.
template <class T, int N>
void combine_rows(const T* image, const RowPlan<typename Memory<T>::Scalar>* plans, int64_t rows,
                  const Columns<typename Memory<T>::Scalar>& c, int64_t first) {
  using M = Memory<T>;
  using V = typename M::Vector;
  using A = Memory<typename M::Scalar>;
  const int64_t full = c.length - c.length % M::kLanes, stride = c.stride, down = c.down;
  const int left = static_cast<int>(c.length - full);
  auto* to = c.to + first * c.to_step;
  for (int64_t row = 0; row < rows; row++, to += c.to_step) {
    const int64_t n = plans[row].count;
    const T* const from = image + plans[row].offset;
    const T* const soon = from + n * stride + c.ahead;
    const Taps<N, V> taps(plans[row].coef, n);
    for (int64_t i = 0; i < full; i += M::kLanes) {
      prefetch(soon + i * down);
      if (down > 1) prefetch(soon + i * down + M::kLanes);
      const auto at = [&](int64_t j) __attribute__((always_inline)) { return M::load(from + j * stride + i); };
      A::store(to + i, taps.sum(at));
    }
    if (left) {
      const auto at = [&](int64_t j) __attribute__((always_inline)) {
        return M::load_n(from + j * stride + full, left);
      };
      A::store_n(to + full, taps.sum(at), left);
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

template <class T>
void combine(const T* image, const RowPlan<typename Memory<T>::Scalar>* plans, int64_t rows,
             const Columns<typename Memory<T>::Scalar>& c) {
  for (int64_t i = 0; i < rows;) {
    int64_t end = i + 1;
    while (end < rows && plans[end].count == plans[i].count) end++;
#define ISG_COMBINE(N) combine_rows<T, N>(image, plans + i, end - i, c, i)
    ISG_BY_COUNT(plans[i].count, ISG_COMBINE)
    i = end;
  }
}

// ---- along x: rows of the computing type into rows of memory

template <class S>
struct RowOfOne {  // what the outputs of one residue need
  const S* from;   // where output m = 0 begins to read
  const S* coef;
  int64_t count;
};

template <class T>
struct Rows {  // where a block of rows is, and where it goes
  int64_t count, from_step;
  T* to;
  int64_t to_step;
  bool streaming;
};

template <int N, class V, class S>
ISG_INLINE V dot(const S* from, const Taps<N, V>& taps) {
  return taps.sum([&](int64_t j) __attribute__((always_inline)) { return Memory<S>::load(from + j); });
}

// The same of every other number.
template <int N, class V, class S>
ISG_INLINE V dot_pairs(const S* from, const Taps<N, V>& taps, int64_t n) {
  using A = Memory<S>;
  V sum = {};
  constexpr int kPairs = N < 0 ? -1 : N / 2;
  const auto pair = [&](int64_t j) __attribute__((always_inline)) {
    const V a = A::load(from + 2 * j), b = A::load(from + 2 * j + A::kLanes);
    sum += evens(a, b) * taps[2 * j];
    sum += odds(a, b) * taps[2 * j + 1];
  };
  for_each<kPairs>(n / 2, pair);
  if (n % 2) sum += evens(A::load(from + n - 1), A::load(from + n - 1 + A::kLanes)) * taps[n - 1];
  return sum;
}

// Down by 1 or by 2.
template <class T, int N, int Down>
void along_x_same(const RowOfOne<typename Memory<T>::Scalar>& r, const Rows<T>& rows, int64_t out) {
  using M = Memory<T>;
  using V = typename M::Vector;
  const Taps<N, V> taps(r.coef, r.count);
  const auto* from = r.from;
  T* to = rows.to;
  const auto at = [&](int64_t o) __attribute__((always_inline)) {
    if constexpr (Down == 1) return dot(from + o, taps);
    else return dot_pairs(from + 2 * o, taps, N < 0 ? r.count : N);
  };
  for (int64_t row = 0; row < rows.count; row++, from += rows.from_step, to += rows.to_step) {
    int64_t o = 0;
    if (rows.streaming)
      for (; o + M::kLanes <= out; o += M::kLanes) stream(to + o, at(o));
    else
      for (; o + M::kLanes <= out; o += M::kLanes) M::store(to + o, at(o));
    if (o < out) M::store_n(to + o, at(o), static_cast<int>(out - o));
  }
}

template <class T, int N0, int N1>
void along_x_up(const RowOfOne<typename Memory<T>::Scalar>& r0, const RowOfOne<typename Memory<T>::Scalar>& r1,
                const Rows<T>& rows, int64_t out) {
  using M = Memory<T>;
  using V = typename M::Vector;
  constexpr int64_t kLanes = M::kLanes;
  const Taps<N0, V> taps0(r0.coef, r0.count);
  const Taps<N1, V> taps1(r1.coef, r1.count);
  const auto *from0 = r0.from, *from1 = r1.from;
  T* to = rows.to;
  for (int64_t row = 0; row < rows.count; row++) {
    int64_t m = 0;
    for (; 2 * (m + kLanes) <= out; m += kLanes) {
      const V even = dot(from0 + m, taps0), odd = dot(from1 + m, taps1);
      put(to + 2 * m, interleave_low(even, odd), rows.streaming);
      put(to + 2 * m + kLanes, interleave_high(even, odd), rows.streaming);
    }
    if (2 * m < out) {
      const V even = dot(from0 + m, taps0), odd = dot(from1 + m, taps1);
      const int64_t left = out - 2 * m;
      if (left >= kLanes) M::store(to + 2 * m, interleave_low(even, odd));
      else M::store_n(to + 2 * m, interleave_low(even, odd), static_cast<int>(left));
      if (left > kLanes) M::store_n(to + 2 * m + kLanes, interleave_high(even, odd), static_cast<int>(left - kLanes));
    }
    from0 += rows.from_step;
    from1 += rows.from_step;
    to += rows.to_step;
  }
}

// Any factors: scalar, one residue after the other; `to_up` is the distance of its outputs.
template <class T>
void along_x_any(const RowOfOne<typename Memory<T>::Scalar>& r, const Rows<T>& rows, int64_t outs, int64_t to_up,
                 int64_t down) {
  using S = typename Memory<T>::Scalar;
  for (int64_t row = 0; row < rows.count; row++)
    for (int64_t m = 0; m < outs; m++) {
      const S* from = r.from + row * rows.from_step + m * down;
      S sum = 0;
      for (int64_t j = 0; j < r.count; j++) sum += from[j] * r.coef[j];
      Memory<T>::store_n(rows.to + row * rows.to_step + m * to_up, splat(sum), 1);
    }
}

// Channels-last: each tap is a vector of channels.
template <class T, int N>
void along_x_pixels(const RowOfOne<typename Memory<T>::Scalar>& r, const Rows<T>& rows, int64_t outs, int64_t to_pixel,
                    int64_t from_pixel, int64_t channels) {
  using M = Memory<T>;
  using V = typename M::Vector;
  using A = Memory<typename M::Scalar>;
  const Taps<N, V> taps(r.coef, r.count);
  for (int64_t row = 0; row < rows.count; row++)
    for (int64_t m = 0; m < outs; m++) {
      const auto* from = r.from + row * rows.from_step + m * from_pixel;
      T* to = rows.to + row * rows.to_step + m * to_pixel;
      const auto at = [&](int64_t c) __attribute__((always_inline)) {
        // The rows have room to be read beyond their end.
        return taps.sum([&](int64_t j) __attribute__((always_inline)) { return A::load(from + j * channels + c); });
      };
      int64_t c = 0;
      for (; c + M::kLanes <= channels; c += M::kLanes) put(to + c, at(c), rows.streaming);
      if (c < channels) M::store_n(to + c, at(c), static_cast<int>(channels - c));
    }
}

// The whole pass along x, out of rows that hold input x.lowest() at their start.
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

  void operator()(const S* row, const S* coefficients, const Rows<T>& rows) const {
    const auto residue = [&](int64_t r) {
      return RowOfOne<S>{row + from.data[r], coefficients + coef.data[r], count.data[r]};
    };
    if (channels == 1 && x.up == 1 && x.down <= 2) {
      const RowOfOne<S> r = residue(0);
#define ISG_SAME(N) along_x_same<T, N, 1>(r, rows, x.out)
#define ISG_DOWN(N) along_x_same<T, N, 2>(r, rows, x.out)
      if (x.down == 1) { ISG_BY_COUNT(r.count, ISG_SAME) } else { ISG_BY_COUNT(r.count, ISG_DOWN) }
      return;
    }
    if (channels == 1 && x.up == 2 && x.down == 1 && residues == 2) {
      const RowOfOne<S> r0 = residue(0), r1 = residue(1);
      if (r0.count == 2 && r1.count == 2) along_x_up<T, 2, 2>(r0, r1, rows, x.out);
      else if (r0.count == 2 && r1.count == 1) along_x_up<T, 2, 1>(r0, r1, rows, x.out);
      else if (r0.count == 1 && r1.count == 2) along_x_up<T, 1, 2>(r0, r1, rows, x.out);
      else along_x_up<T, -1, -1>(r0, r1, rows, x.out);
      return;
    }
    for (int64_t i = 0; i < residues; i++) {
      const RowOfOne<S> r = residue(i);
      const int64_t outs = ceil_div(x.out - i, x.up);
      Rows<T> shifted = rows;
      shifted.to += i * channels;
      if (channels == 1) {
        along_x_any(r, shifted, outs, x.up, x.down);
      } else {
#define ISG_PIXELS(N) along_x_pixels<T, N>(r, shifted, outs, x.up * channels, x.down * channels, channels)
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

  const int64_t low = x.lowest(), high = x.highest();                        // columns that are read,
  const int64_t begin = most(0, low), end = most(begin, least(x.in, high));  // and which of them exist
  constexpr int64_t kAlign = 64 / sizeof(S);
  const int64_t before = (begin - low) * channels, lead = ceil_div(before, kAlign) * kAlign - before;
  const int64_t row_size = ceil_div(lead + (most(high, begin) - low) * channels, kAlign) * kAlign;
  const int64_t out_row = x.out * channels, in_row = x.in * channels, length = (end - begin) * channels;

  Scratch<RowPlan<S>> plans(y.out);  // their divisions are made once for all planes
  for (int64_t o = 0; o < y.out; o++) {
    const int64_t first = y.first(o), j0 = most(0, -first), j1 = most(j0, least(y.count(o), y.in - first));
    plans.data[o] = {j1 > j0 ? (first + j0) * in_row : 0, j1 - j0, cy + y.phase(o) * ny + j0};
  }

  // Rows of a block go along y first, then along x, so that they are read when their stores are long done; yet
  // few enough of them that they stay in the first-level cache.
  const int64_t block = most(1, least(32, 12288 / (row_size * static_cast<int64_t>(sizeof(S)))));
  const int64_t chunk = most(1, least(y.out, most(block, 8192 / out_row)));  // rows of one piece of work
  const int64_t chunks = ceil_div(y.out, chunk);
  const T* const in = static_cast<const T*>(p.x);
  T* const out = static_cast<T*>(p.y);
  constexpr int64_t kSize = sizeof(T);
  const bool streaming =
      may_stream(out, (p.channels_last ? channels : out_row) * kSize, planes * y.out * out_row * kSize);
  const int64_t ahead = most(0, 8192 / kSize - y.down * in_row);

  parallel(planes * chunks, ceil_div(16384, chunk * out_row), [&](int64_t from, int64_t to) {
    const AlongX<T> along_x(x, channels);
    const AlongX<S> along_x_plain(x, channels);
    // A vector may be read beyond the end of the last row, two where every other number counts.
    Scratch<S> row_memory(block * row_size + (4 + 2 * x.down) * kFloats + channels);
    Scratch<S> sum_memory(separable ? 1 : 2 * (out_row + kFloats));
    S *const row = row_memory.data + lead, *const exists = row + before;
    for (int64_t piece = from; piece < to; piece++) {
      const int64_t plane = piece / chunks, oy_begin = piece % chunks * chunk;
      const int64_t oy_end = least(y.out, oy_begin + chunk);
      const T* const image = in + plane * y.in * in_row + begin * channels;
      for (int64_t oy = oy_begin; oy < oy_end; oy += separable ? block : 1) {
        T* const to_row = out + (plane * y.out + oy) * out_row;
        if (separable) {
          const int64_t rows = least(block, oy_end - oy);
          combine(image, plans.data + oy, rows, Columns<S>{in_row, length, ahead, y.down, exists, row_size});
          along_x(row, cx, Rows<T>{rows, row_size, to_row, out_row, streaming});
          continue;
        }
        S *const sum = sum_memory.data, *const part = sum + out_row + kFloats;
        memset(sum, 0, static_cast<size_t>(out_row) * sizeof(S));
        const int64_t first = y.first(oy), phase = y.phase(oy);
        for (int64_t j = most(0, -first); j < least(y.count(oy), y.in - first); j++) {
          const S one = 1;
          const RowPlan<S> only{(first + j) * in_row, 1, &one};
          combine(image, &only, 1, Columns<S>{in_row, length, ahead, 1, exists, 0});
          const int64_t tap = y.start + y.step * (phase + y.up * j);
          along_x_plain(row, cx + tap * x.up * nx, Rows<S>{1, 0, part, 0, false});
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
