// upfirdn2d on the CPU, memory being read and written about once. Few taps on planes, factors of 1 and 2 along x:
// both axes at once, in registers. Else along y into a row of the computing type, which stays in the cache, then
// along x out of it.
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

// Vectors of results, of which `left` are still to come; `left` may be 0 or less.
template <class T>
ISG_INLINE void put_some(T* to, typename Memory<T>::Vector v, int64_t left, bool streaming) {
  using M = Memory<T>;
  if (left >= M::kLanes) put(to, v, streaming);
  else if (left > 0) M::store_n(to, v, static_cast<int>(left));
}
template <class T, class V>
ISG_INLINE void put_pairs(T* to, V even, V odd, int64_t left, bool streaming) {
  put_some(to, interleave_low(even, odd), left, streaming);
  put_some(to + Memory<T>::kLanes, interleave_high(even, odd), left - Memory<T>::kLanes, streaming);
}
ISG_INLINE void put_pairs(BFloat16* to, VF even, VF odd, int64_t left, bool streaming) {
  if (left < 2 * kFloats) put_pairs<BFloat16>(to, even, odd, left, streaming);
  else put_halves(to, even, odd, streaming);
}

ISG_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
// Into the second-level cache, where there is room for what is needed much later.
ISG_INLINE void prefetch_early(const void* p) { __builtin_prefetch(p, 0, 2); }

// ---- along y: rows of memory, each with its coefficient, into one row

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

template <class V, class S>
ISG_INLINE V dot(const S* from, const Taps<-1, V>& taps) {
  return taps.sum([&](int64_t j) __attribute__((always_inline)) { return Memory<S>::load(from + j); });
}

// The same of every other number.
template <class V, class S>
ISG_INLINE V dot_pairs(const S* from, const Taps<-1, V>& taps) {
  using A = Memory<S>;
  V sum = {};
  for (int64_t j = 0; j + 1 < taps.n; j += 2) {
    const V a = A::load(from + j), b = A::load(from + j + A::kLanes);
    sum += evens(a, b) * taps[j];
    sum += odds(a, b) * taps[j + 1];
  }
  if (taps.n % 2) {
    const S* const last = from + taps.n - 1;
    sum += evens(A::load(last), A::load(last + A::kLanes)) * taps[taps.n - 1];
  }
  return sum;
}

// Down by 1 or by 2.
template <class T, int Down>
void along_x_same(const RowOfOne<typename Memory<T>::Scalar>& r, const Rows<T>& rows, int64_t out) {
  using M = Memory<T>;
  const Taps<-1, typename M::Vector> taps(r.coef, r.count);
  const auto* from = r.from;
  T* to = rows.to;
  for (int64_t row = 0; row < rows.count; row++, from += rows.from_step, to += rows.to_step)
    for (int64_t o = 0; o < out; o += M::kLanes) {
      if constexpr (Down == 1) put_some(to + o, dot(from + o, taps), out - o, rows.streaming);
      else put_some(to + o, dot_pairs(from + 2 * o, taps), out - o, rows.streaming);
    }
}

template <class T>
void along_x_up(const RowOfOne<typename Memory<T>::Scalar>& r0, const RowOfOne<typename Memory<T>::Scalar>& r1,
                const Rows<T>& rows, int64_t out) {
  using M = Memory<T>;
  using V = typename M::Vector;
  constexpr int64_t kLanes = M::kLanes;
  const Taps<-1, V> taps0(r0.coef, r0.count), taps1(r1.coef, r1.count);
  const auto *from0 = r0.from, *from1 = r1.from;
  T* to = rows.to;
  for (int64_t row = 0; row < rows.count; row++) {
    for (int64_t m = 0; 2 * m < out; m += kLanes)
      put_pairs(to + 2 * m, dot(from0 + m, taps0), dot(from1 + m, taps1), out - 2 * m, rows.streaming);
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
      if (x.down == 1) along_x_same<T, 1>(r, rows, x.out);
      else along_x_same<T, 2>(r, rows, x.out);
      return;
    }
    if (channels == 1 && x.up == 2 && x.down == 1 && residues == 2) {
      along_x_up(residue(0), residue(1), rows, x.out);
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

// ---- few taps on rows of one channel: both axes at once, in registers

// What is done along x, result 0 beginning to read at pixel First: N taps with or without every other result left out;
// or by 2 up, with N0 taps for even results and N1 for odd ones, which begin `Later` (0 or 1) pixels after those of the
// even one before. Where the same is done along y, kRows rows of results are made at a time, with which kNew rows of the
// image enter; of halving more than one was no faster.
template <int N, int First>
struct Same {
  static constexpr int kRows = 2, kNew = 2;
  static constexpr bool kHasThree = N == 3;  // three taps along y have code of their own
};
template <int N, int First>
struct Down {
  static constexpr int kRows = 1, kNew = 2;
  static constexpr bool kHasThree = false;
};
template <int N0, int N1, int Later, int First>
struct Up {
  static constexpr int kRows = 2, kNew = 1;
  static constexpr bool kHasThree = false;
};

// Float16 and machines without AVX2 do without rows together and the rest: the code takes its time to compile.
constexpr bool is_common(float) { return ISG_BYTES > 16; }
constexpr bool is_common(BFloat16) { return ISG_BYTES > 16; }
template <class T>
constexpr bool is_common(T) { return false; }

template <class S, int NY>
struct RowOfFew {      // what a row of results is made of
  int64_t offset[NY];  // of rows of the image, in elements; negative where there is none
  S coef[NY];
  bool whole;          // there are all of them, one after the other
  bool and_below;      // the next row has as many taps, from one row further down on
};

template <class S, int NY>
struct RowsOfFew : Scratch<RowOfFew<S, NY>> {
  RowsOfFew(const AxisPlan& x, const AxisPlan& y, const S* cy) : Scratch<RowOfFew<S, NY>>(y.out) {
    for (int64_t o = 0; o < y.out; o++) {
      auto& row = this->data[o];
      const int64_t missing = NY - y.count(o);  // which come first: the last one is fetched ahead
      row.whole = true;
      row.and_below = o + 1 < y.out && missing == 0 && y.count(o + 1) == NY && y.first(o + 1) == y.first(o) + 1;
      for (int64_t j = 0; j < NY; j++) {
        const int64_t i = y.first(o) - missing + j;
        const bool exists = j >= missing && i >= 0 && i < y.in;
        row.offset[j] = exists ? i * x.in : -1;
        row.coef[j] = j >= missing ? cy[y.phase(o) * y.most_taps() + j - missing] : S(0);
        row.whole = row.whole && exists;
      }
    }
  }
};

template <class T>
struct Few {  // what is the same for all rows
  using S = typename Memory<T>::Scalar;
  int64_t in, out;          // pixels and results in a row
  const S *coef, *coef_odd;
  const T* zeros;           // for a row that doesn't exist
  bool streaming;
};

// What begins D lanes after `now` in memory, where `before` comes first and `next` last.
template <int D, class V>
ISG_INLINE V pixels_at(V before, V now, V next) {
  if constexpr (D < 0) return ahead_by<static_cast<int>(sizeof(V) / sizeof(now[0])) + D>(before, now);
  else return ahead_by<D>(now, next);
}
template <class V>
struct Pair { V even, odd; };  // every other pixel of two vectors
// What is D places after the even pixels.
template <int D, class V>
ISG_INLINE V pixels_at(const Pair<V>& before, const Pair<V>& now, const Pair<V>& next) {
  constexpr int kPlace = (D - (D & 1)) / 2;
  if constexpr (D & 1) return pixels_at<kPlace>(before.odd, now.odd, next.odd);
  else return pixels_at<kPlace>(before.even, now.even, next.even);
}
// The sum over taps, the first of them D places on; P is a vector or a pair.
template <int D, int N, class V, class P>
ISG_INLINE V dot_from(const P& before, const P& now, const P& next, const Taps<N, V>& taps) {
  V sum = pixels_at<D>(before, now, next) * taps[0];
  if constexpr (N > 1) sum += pixels_at<D + 1>(before, now, next) * taps[1];
  if constexpr (N > 2) sum += pixels_at<D + 2>(before, now, next) * taps[2];
  if constexpr (N > 3) sum += pixels_at<D + 3>(before, now, next) * taps[3];
  return sum;
}

// R rows of results at a time, which share what they read.
template <class V, int R>
struct Together {
  V row[R];
};

// step(k, inside) for each k until all results are there, at which R rows of results are written from place `PerStep` times k on and
// vectors (or pairs) k + 1 of the image's row are read; `inside` says, as a constant, that all of them are whole.
template <int64_t Reads, int64_t PerStep, class T, class F>
ISG_INLINE void walk(const Few<T>& p, F step) {
  const int64_t inside = least(p.in / Reads - 1, p.out / PerStep);
  int64_t k = 0;
  if constexpr (is_common(T{}))
    for (; k < inside; k++) step(k, Constant<true>{});
  for (; k * PerStep < p.out; k++) step(k, Constant<false>{});
}

// The walk along R rows of results, given what is left of the image's rows after the sums along y: sums.one(k) is their
// k-th vectors, sums.two(k) the k-th pairs of vectors. Whole vectors are read and what lies between two of them is
// picked: reads from places between would each touch two lines of the cache, and leave the row at either end.
template <class T, int R, int N, int First, class F>
ISG_INLINE void walk_rows(Same<N, First>, const Few<T>& p, const F& sums, T* to) {
  using V = typename Memory<T>::Vector;
  constexpr int64_t kLanes = Memory<T>::kLanes;
  const Taps<N, V> taps(p.coef, N);
  if constexpr (comes_in_pairs(T{})) {
    Together<Pair<V>, R> before = {}, now = sums.two(0, Constant<false>{});
    walk<2 * kLanes, 2 * kLanes>(p, [&](int64_t k, auto inside) __attribute__((always_inline)) {
      const auto next = sums.two(k + 1, inside);
      const int64_t left = inside.value ? 2 * kLanes : p.out - 2 * k * kLanes;
      for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
        put_pairs(to + r * p.out + 2 * k * kLanes, dot_from<First>(before.row[r], now.row[r], next.row[r], taps),
                  dot_from<First + 1>(before.row[r], now.row[r], next.row[r], taps), left, p.streaming);
      });
      before = now;
      now = next;
    });
  } else {
    Together<V, R> before = {}, now = sums.one(0, Constant<false>{});
    walk<kLanes, kLanes>(p, [&](int64_t k, auto inside) __attribute__((always_inline)) {
      const auto next = sums.one(k + 1, inside);
      const int64_t left = inside.value ? kLanes : p.out - k * kLanes;
      for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
        put_some(to + r * p.out + k * kLanes, dot_from<First>(before.row[r], now.row[r], next.row[r], taps), left,
                 p.streaming);
      });
      before = now;
      now = next;
    });
  }
}
template <class T, int R, int N, int First, class F>
ISG_INLINE void walk_rows(Down<N, First>, const Few<T>& p, const F& sums, T* to) {
  using V = typename Memory<T>::Vector;
  constexpr int64_t kLanes = Memory<T>::kLanes;
  const Taps<N, V> taps(p.coef, N);
  Together<Pair<V>, R> before = {}, now = sums.two(0, Constant<false>{});
  walk<2 * kLanes, kLanes>(p, [&](int64_t k, auto inside) __attribute__((always_inline)) {
    const auto next = sums.two(k + 1, inside);
    const int64_t left = inside.value ? kLanes : p.out - k * kLanes;
    for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
      put_some(to + r * p.out + k * kLanes, dot_from<First>(before.row[r], now.row[r], next.row[r], taps), left,
               p.streaming);
    });
    before = now;
    now = next;
  });
}
template <class T, int R, int N0, int N1, int Later, int First, class F>
ISG_INLINE void walk_rows(Up<N0, N1, Later, First>, const Few<T>& p, const F& sums, T* to) {
  using V = typename Memory<T>::Vector;
  constexpr int64_t kLanes = Memory<T>::kLanes;
  const Taps<N0, V> of_even(p.coef, N0);
  const Taps<N1, V> of_odd(p.coef_odd, N1);
  Together<V, R> before = {}, now = sums.one(0, Constant<false>{});
  walk<kLanes, 2 * kLanes>(p, [&](int64_t k, auto inside) __attribute__((always_inline)) {
    const auto next = sums.one(k + 1, inside);
    const int64_t left = inside.value ? 2 * kLanes : p.out - 2 * k * kLanes;
    for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
      put_pairs(to + r * p.out + 2 * k * kLanes, dot_from<First>(before.row[r], now.row[r], next.row[r], of_even),
                dot_from<First + Later>(before.row[r], now.row[r], next.row[r], of_odd), left, p.streaming);
    });
    before = now;
    now = next;
  });
}

// The sums along y that R rows of results are made of, the second of which begins one row below the first. Of the rows
// read, the last New are fetched ahead.
template <class T, int NY, int R, int New>
struct RowSums {
  using M = Memory<T>;
  using V = typename M::Vector;
  static constexpr int kRead = NY + R - 1;
  static constexpr int64_t kLanes = M::kLanes, kSoon = 4096 / sizeof(T), kLater = 16384 / sizeof(T);
  const T* from[kRead];
  const Taps<NY, V> taps, taps_below;
  const int64_t length;

  ISG_INLINE void fetch_ahead(int64_t at) const {
    for_each<kRead>(kRead, [&](int64_t j) __attribute__((always_inline)) {
      if (j < kRead - New) return;
      prefetch(from[j] + at + kSoon);
      prefetch_early(from[j] + at + kLater);
    });
  }
  // at(j) is a vector of the j-th row that is read.
  template <class F>
  ISG_INLINE Together<V, R> sum(F at) const {
    V v[kRead];
    for_each<kRead>(kRead, [&](int64_t j) __attribute__((always_inline)) { v[j] = at(j); });
    Together<V, R> sums;
    for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
      const auto read = [&](int64_t j) __attribute__((always_inline)) { return v[r + j]; };
      sums.row[r] = r ? taps_below.sum(read) : taps.sum(read);
    });
    return sums;
  }
  template <bool whole>
  ISG_INLINE Together<V, R> one(int64_t k, Constant<whole>) const {
    const int64_t at = k * kLanes, left = length - at;
    if (whole || left >= kLanes) {
      fetch_ahead(at);
      return sum([&](int64_t j) __attribute__((always_inline)) { return M::load(from[j] + at); });
    }
    if (left <= 0) return {};
    return sum([&](int64_t j) __attribute__((always_inline)) {
      return M::load_n(from[j] + at, static_cast<int>(left));
    });
  }
  template <bool whole>
  ISG_INLINE Together<Pair<V>, R> two(int64_t k, Constant<whole> is_whole) const {
    Together<Pair<V>, R> pairs;
    if constexpr (comes_in_pairs(T{})) {
      const int64_t at = 2 * k * kLanes;
      if (whole || length - at >= 2 * kLanes) {
        fetch_ahead(at);
        const auto even = sum([&](int64_t j) __attribute__((always_inline)) { return lower_halves(from[j] + at); });
        const auto odd = sum([&](int64_t j) __attribute__((always_inline)) { return upper_halves(from[j] + at); });
        for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) { pairs.row[r] = {even.row[r], odd.row[r]}; });
        return pairs;
      }
    }
    const auto a = one(2 * k, is_whole), b = one(2 * k + 1, is_whole);
    for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
      pairs.row[r] = {evens(a.row[r], b.row[r]), odds(a.row[r], b.row[r])};
    });
    return pairs;
  }
};

// `count` rows of results of one plane.
template <class T, int NY, class X>
ISG_INLINE void filter_rows(const Few<T>& p, const T* image, const RowOfFew<typename Memory<T>::Scalar, NY>* rows,
                            int64_t count, T* to) {
  const auto row_at = [&](int64_t offset) __attribute__((always_inline)) {
    return offset < 0 ? p.zeros : image + offset;
  };
  const auto make = [&](int64_t o, auto together) __attribute__((always_inline)) {
    constexpr int R = together.value;
    const auto &row = rows[o], &below = rows[o + R - 1];
    RowSums<T, NY, R, R == X::kRows ? X::kNew : 1> sums{{row_at(row.offset[0])}, {row.coef, NY}, {below.coef, NY}, p.in};
    for_each<NY>(NY, [&](int64_t j) __attribute__((always_inline)) { sums.from[j + R - 1] = row_at(below.offset[j]); });
    walk_rows<T, R>(X{}, p, sums, to + o * p.out);
  };
  for (int64_t o = 0; o < count; o++) {
    if constexpr (X::kRows == 2 && is_common(T{}))
      if (o + 1 < count && rows[o].and_below) {
        make(o++, Constant<2>{});
        continue;
      }
    make(o, Constant<1>{});
  }
}

// All of it, for planes [y.in, x.in]; the coefficients are those of AxisPlan.
template <class T, int NY, class X>
void filter_planes(const AxisPlan& x, const AxisPlan& y, const typename Memory<T>::Scalar* cx,
                   const typename Memory<T>::Scalar* cy, const T* in, T* out, int64_t planes, bool streaming) {
  using S = typename Memory<T>::Scalar;
  const RowsOfFew<S, NY> rows(x, y, cy);
  const Scratch<T> zeros(x.in);
  const Few<T> p{x.in, x.out, cx + x.phase(0) * x.most_taps(), cx + x.phase(1) * x.most_taps(),
                 zeros.data, streaming};
  const int64_t chunk = least(y.out, 2 * ceil_div(8192, x.out)), chunks = ceil_div(y.out, chunk);  // rows of one piece
  parallel(planes * chunks, ceil_div(16384, chunk * x.out), [&](int64_t begin, int64_t end) {
    const Few<T> own = p;
    int64_t plane = begin / chunks, row = begin % chunks * chunk;
    for (int64_t piece = begin; piece < end; piece++) {
      filter_rows<T, NY, X>(own, in + plane * y.in * x.in, rows.data + row, least(chunk, y.out - row),
                            out + (plane * y.out + row) * x.out);
      row += chunk;
      if (row >= y.out) {
        row = 0;
        plane++;
      }
    }
    if (streaming) stream_fence();
  });
}

#if defined(ISG_SIMD_avx512)
// ---- the same for planes whose rows fit into two vectors: what belongs together is picked from those

enum class Picked { row, halves, rows };  // from one vector, from two that make a row, from two rows of one each

template <int N>
struct Picks {  // of one vector of results
  VI index[N];
  VF coef[N];
  uint16_t lanes[N];
};

// Vector `half` of the sums along y of R rows, which share what they read; two rows are whole, and one below the other.
template <int NY, int R, class T>
ISG_INLINE Together<VF, R> sums_of_rows(const RowOfFew<float, NY>* rows, const T* image, const T* zeros, int64_t width,
                                        int64_t half, uint16_t lanes) {
  using M = Memory<T>;
  constexpr int kRead = NY + R - 1;
  const int64_t skip = half * M::kLanes;
  const auto sums_of = [&](auto at) __attribute__((always_inline)) {
    VF v[kRead];
    for_each<kRead>(kRead, [&](int64_t j) __attribute__((always_inline)) { v[j] = at(j); });
    Together<VF, R> sums;
    for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) {
      sums.row[r] = v[r] * rows[r].coef[0];
      for_each<NY, 1>(NY, [&](int64_t j) __attribute__((always_inline)) { sums.row[r] += v[r + j] * rows[r].coef[j]; });
    });
    return sums;
  };
  if (R > 1 || rows->whole) {
    const T* const first = image + rows->offset[0] + skip;
    return sums_of([&](int64_t j) __attribute__((always_inline)) { return M::load_masked(first + j * width, lanes); });
  }
  return sums_of([&](int64_t j) __attribute__((always_inline)) {
    return M::load_masked((rows->offset[j] < 0 ? zeros : image + rows->offset[j]) + skip, lanes);
  });
}

template <class T, int NY, int N, Picked kind, int Vectors>
void filter_small_planes(const AxisPlan& x, const AxisPlan& y, const float* cx, const float* cy, const T* in, T* out,
                         int64_t planes, bool streaming) {
  using M = Memory<T>;
  constexpr int64_t kLanes = M::kLanes, kRows = kind == Picked::rows ? 2 : 1;
  Scratch<Picks<N>> picks(Vectors);
  for (int64_t i = 0; i < kRows * x.out; i++) {
    auto& p = picks.data[i / kLanes];
    const int64_t o = i % x.out, lane = i % kLanes;
    for (int64_t j = 0; j < x.count(o); j++) {
      const int64_t at = x.first(o) + j;
      if (at < 0 || at >= x.in) continue;
      p.index[j][lane] = static_cast<int32_t>(i / x.out * kLanes + at);
      p.coef[j][lane] = cx[x.phase(o) * x.most_taps() + j];
      p.lanes[j] |= static_cast<uint16_t>(1u << lane);
    }
  }
  const RowsOfFew<float, NY> rows(x, y, cy);
  const Scratch<T> zeros(2 * kLanes);
  const auto first_lanes = [](int64_t n) {
    return lanes_up_to(static_cast<int>(most(0, least(kLanes, n))));
  };
  const uint16_t low = first_lanes(x.in), high = first_lanes(x.in - kLanes);
  const auto* const all = picks.data;
  const auto* const all_rows = rows.data;
  const T* const nothing = zeros.data;
  const int64_t x_in = x.in, x_out = x.out, y_in = y.in, y_out = y.out, grain = ceil_div(16384, y_out * x_out);
  parallel_by_value(planes, grain, [=](int64_t begin, int64_t end) __attribute__((always_inline)) {
    const T* image = in + begin * y_in * x_in;
    T* to = out + begin * y_out * x_out;
    // In registers, where the compiler would read them from memory for each row.
    VI index[Vectors][N];
    VF coef[Vectors][N];
    uint16_t lanes[Vectors][N];
    for_each<Vectors>(Vectors, [&](int64_t k) __attribute__((always_inline)) {
      for_each<N>(N, [&](int64_t j) __attribute__((always_inline)) {
        index[k][j] = all[k].index[j];
        coef[k][j] = all[k].coef[j];
        lanes[k][j] = all[k].lanes[j];
        asm("" : "+v"(index[k][j]), "+v"(coef[k][j]));
      });
    });
    const auto put_row = [&](VF first, VF second, int64_t left) __attribute__((always_inline)) {
      for_each<Vectors>(Vectors, [&](int64_t k) __attribute__((always_inline)) {
        const auto picked = [&](int64_t j) __attribute__((always_inline)) {
          if constexpr (kind == Picked::row) return pick(first, index[k][j], lanes[k][j]);
          else return pick(first, second, index[k][j], lanes[k][j]);
        };
        VF sum = picked(0) * coef[k][0];
        for_each<N, 1>(N, [&](int64_t j) __attribute__((always_inline)) { sum += picked(j) * coef[k][j]; });
        put_some(to + k * kLanes, sum, left - k * kLanes, streaming);
      });
      to += left;
    };
    for (int64_t plane = begin; plane < end; plane++, image += y_in * x_in)
      for (int64_t o = 0; o < y_out;) {
        const auto* const row = all_rows + o;
        const auto put_rows = [&](auto together) __attribute__((always_inline)) {
          constexpr int R = together.value;
          const auto a = sums_of_rows<NY, R>(row, image, nothing, x_in, 0, low);
          auto b = a;
          if constexpr (kind == Picked::halves) b = sums_of_rows<NY, R>(row, image, nothing, x_in, 1, high);
          for_each<R>(R, [&](int64_t r) __attribute__((always_inline)) { put_row(a.row[r], b.row[r], x_out); });
          o += R;
        };
        prefetch(image + row->offset[NY - 1] + 1024 / sizeof(T));
        if constexpr (kind == Picked::rows) {
          const bool both = o + 1 < y_out;
          const VF a = sums_of_rows<NY, 1>(row, image, nothing, x_in, 0, low).row[0];
          const VF b = both ? sums_of_rows<NY, 1>(row + 1, image, nothing, x_in, 0, low).row[0] : a;
          put_row(a, b, both ? 2 * x_out : x_out);
          o += 2;
        } else if (row->whole && row->and_below && row[1].whole) {
          put_rows(Constant<2>{});
        } else {
          put_rows(Constant<1>{});
        }
      }
    if (streaming) stream_fence();
  });
}

template <class T>
bool filter_small(const AxisPlan& x, const AxisPlan& y, const float* cx, const float* cy, const T* in, T* out,
                  int64_t planes, bool streaming) {
  constexpr int64_t kLanes = Memory<T>::kLanes;
  if (x.in > 2 * kLanes || x.out > 2 * kLanes) return false;
  const auto with = [&](auto picked, auto vectors) {
    constexpr Picked k = decltype(picked)::value;
    constexpr int v = decltype(vectors)::value;
    const bool few = x.most_taps() <= 2;
    const auto f = y.most_taps() <= 2
                       ? (few ? filter_small_planes<T, 2, 2, k, v> : filter_small_planes<T, 2, 4, k, v>)
                       : (few ? filter_small_planes<T, 4, 2, k, v> : filter_small_planes<T, 4, 4, k, v>);
    f(x, y, cx, cy, in, out, planes, streaming);
    return true;
  };
  const Constant<1> one;
  const Constant<2> two;
  const bool fits = x.out <= kLanes;
  if (x.in > kLanes) return fits ? with(Constant<Picked::halves>{}, one) : with(Constant<Picked::halves>{}, two);
  if (x.out <= kLanes / 2) return with(Constant<Picked::rows>{}, one);
  return fits ? with(Constant<Picked::row>{}, one) : with(Constant<Picked::row>{}, two);
}
#endif

// Whether it was done: true where both axes have few taps, and factors along x that there is code for.
template <class T>
bool filter_few(const AxisPlan& x, const AxisPlan& y, const typename Memory<T>::Scalar* cx,
                const typename Memory<T>::Scalar* cy, const T* in, T* out, int64_t planes, bool streaming) {
  const int64_t ny = y.most_taps(), nx = x.most_taps();
  if (nx < 1 || nx > 4 || ny < 1 || ny > 4) return false;
#if defined(ISG_SIMD_avx512)
  if (filter_small(x, y, cx, cy, in, out, planes, streaming)) return true;
#endif
  const auto with = [&](auto kind) {
    using X = decltype(kind);
    if (ny <= 2) filter_planes<T, 2, X>(x, y, cx, cy, in, out, planes, streaming);
    else if (ny == 3 && X::kHasThree) filter_planes<T, X::kHasThree ? 3 : 4, X>(x, y, cx, cy, in, out, planes, streaming);
    else filter_planes<T, 4, X>(x, y, cx, cy, in, out, planes, streaming);
    return true;
  };
  // Begun where filter2d, upsample2d, downsample2d and their gradients begin.
  const int64_t first = x.lowest();
  if (x.up == 1 && x.down == 1) {
    if (nx == 2 && first == 0) return with(Same<2, 0>{});
    if (nx == 2 && first == -1) return with(Same<2, -1>{});
    if (nx == 3 && first == -1) return with(Same<3, -1>{});
    if (nx == 4 && first == -1) return with(Same<4, -1>{});
    if (nx == 4 && first == -2) return with(Same<4, -2>{});
  } else if (x.up == 1 && x.down == 2) {
    if (nx == 2 && first == 0) return with(Down<2, 0>{});
    if (nx == 3 && first == 0) return with(Down<3, 0>{});
    if (nx == 3 && first == -1) return with(Down<3, -1>{});
    if (nx == 4 && first == -1) return with(Down<4, -1>{});
  } else if (x.up == 2 && x.down == 1) {
    const int64_t even = x.count(0), odd = x.count(1), later = x.first(1) - first;
    if (first == 0 && later == 0 && even == 1 && odd == 1) return with(Up<1, 1, 0, 0>{});
    if (first == 0 && later == 0 && even == 1 && odd == 2) return with(Up<1, 2, 0, 0>{});
    if (first == -1 && later == 1 && even == 2 && odd == 1) return with(Up<2, 1, 1, -1>{});
    if (first == -1 && later == 1 && even == 2 && odd == 2) return with(Up<2, 2, 1, -1>{});
  }
  return false;
}

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

  const T* const in = static_cast<const T*>(p.x);
  T* const out = static_cast<T*>(p.y);
  const int64_t out_row = x.out * channels, in_row = x.in * channels;
  constexpr int64_t kSize = sizeof(T);
  const bool streaming =
      may_stream(out, (p.channels_last ? channels : out_row) * kSize, planes * y.out * out_row * kSize);
  if constexpr (sizeof(S) == 4)  // doubles serve tests
    if (separable && channels == 1 && filter_few(x, y, cx, cy, in, out, planes, streaming)) return kOk;

  const int64_t low = x.lowest(), high = x.highest();                        // columns that are read,
  const int64_t begin = most(0, low), end = most(begin, least(x.in, high));  // and which of them exist
  constexpr int64_t kAlign = 64 / sizeof(S);
  const int64_t before = (begin - low) * channels, lead = ceil_div(before, kAlign) * kAlign - before;
  // A row may have no pixel at all, where no tap meets one.
  const int64_t row_size = most(1, ceil_div(lead + (most(high, begin) - low) * channels, kAlign)) * kAlign;
  const int64_t length = (end - begin) * channels;

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
