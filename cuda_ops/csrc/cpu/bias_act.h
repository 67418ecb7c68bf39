// bias_act on the CPU: one pass over memory for each of forward, backward (with the bias gradient) and double
// backward. Vectors of floats; doubles, which serve tests, one at a time.
#pragma once
#include "vector_math.h"
#include "run.h"

namespace isg::ISG_NS {
namespace {

// What a type is computed with here: as Memory, but for double without vectors, whose functions are the C library's.
template <class T>
struct Access : Memory<T> {};
template <>
struct Access<double> {
  using Scalar = double;
  using Vector = double;
  static constexpr int kLanes = 1;
  static ISG_INLINE double load(const double* p) { return *p; }
  static ISG_INLINE void store(double* p, double v) { *p = v; }
  static ISG_INLINE double load_n(const double* p, int) { return *p; }
  static ISG_INLINE void store_n(double* p, double v, int) { *p = v; }
};
ISG_INLINE double total(double v) { return v; }
double total(VF v) {
  double sum = 0;
  for (int i = 0; i < kFloats; i++) sum += v[i];
  return sum;
}
template <class T, class V>
ISG_INLINE void write_one(T* p, V v, bool streaming) { put(p, v, streaming); }
ISG_INLINE void write_one(double* p, double v, bool) { *p = v; }

// ---- the activations: value(u), and for a derivative also slope(u) and curvature(u); NaN gives NaN in all

template <class S>
struct Numbers {
  S alpha, gain, clamp;
};

template <Act A, class V, class S>
struct Point {
  V value, slope, curvature;

  ISG_INLINE Point(V u, S alpha) {
    const V zero = {}, one = constant<V>(S(1));
    if constexpr (A == Act::linear) {
      value = u;
      slope = one;
      curvature = zero;
    } else if constexpr (A == Act::relu) {
      value = u <= S(0) ? zero : u;
      slope = u > S(0) ? one : (u != u ? u : zero);
      curvature = zero;
    } else if constexpr (A == Act::lrelu) {
      value = u > S(0) ? u : u * alpha;
      slope = u > S(0) ? one : (u != u ? u : constant<V>(alpha));
      curvature = zero;
    } else if constexpr (A == Act::tanh) {
      const auto e = exponential(S(-2) * abs_of(u));
      const V below = e.expm1 + S(2), t = -e.expm1 / below;
      value = u < S(0) ? -t : t;
      slope = S(4) * e.exp / (below * below);  // 1 - t^2 without the difference of near numbers
      curvature = S(-2) * value * slope;
    } else if constexpr (A == Act::elu || A == Act::selu) {
      constexpr S scale = A == Act::elu ? S(1) : S(1.0507009873554804934193349852946);
      constexpr S low_scale = A == Act::elu ? S(1) : S(1.0507009873554804934193349852946 * 1.6732632423543772848170429916717);
      const auto e = exponential(u > S(0) ? zero : u);
      value = u > S(0) ? u * scale : e.expm1 * low_scale;
      slope = u > S(0) ? constant<V>(scale) : e.exp * low_scale;
      curvature = u > S(0) ? zero : slope;
    } else {
      const V e = exponential(-abs_of(u)).exp, high = S(1) / (e + S(1)), low = e / (e + S(1));
      const V s = u < S(0) ? low : high, rest = u < S(0) ? high : low;  // sigmoid(u) and 1 - sigmoid(u)
      if constexpr (A == Act::sigmoid) {
        value = s;
        slope = s * rest;
        curvature = slope * (rest - s);
      } else if constexpr (A == Act::swish) {
        value = u * s;
        slope = s * (u * rest + S(1));
        curvature = s * rest * (u * (rest - s) + S(2));
      } else {  // softplus, which torch takes to be linear from 20 on
        value = u > S(20) ? u : (u > S(0) ? u : zero) + log1p_of(e);
        value = u != u ? u : value;
        slope = u > S(20) ? one : s;
        curvature = u > S(20) ? zero : s * rest;
      }
    }
  }
};

// ---- the loops

// How the elements of a call are divided, the same whatever the number of threads: sums come out the same, too.
struct Pieces {
  bool by_channel;  // a row is one channel's; else it is all channels', side by side
  int64_t rows, length, channels;
  int64_t per_row, span;    // a row of one channel in pieces of `span` elements
  int64_t blocks, block;    // rows of all channels in blocks
  int64_t count;            // pieces in all

  explicit Pieces(const BiasActShape& s) : channels(s.channels) {
    constexpr int64_t kSpan = 4096;
    by_channel = s.inner > 1 || s.channels == 1;
    if (by_channel) {
      rows = s.channels == 1 ? 1 : s.outer * s.channels;
      length = s.channels == 1 ? s.outer * s.inner : s.inner;
      span = kSpan;
      per_row = ceil_div(length, span);
      blocks = block = 0;
      count = rows * per_row;
    } else {
      rows = s.outer;
      length = s.channels;
      span = per_row = 0;
      block = most(1, 4 * kSpan / length);
      blocks = ceil_div(rows, block);
      count = blocks;
    }
  }
  int64_t grain() const { return most(1, 32768 / most(1, by_channel ? least(length, span) : block * length)); }
  // Partial sums: of each piece, or of each channel of each block.
  int64_t partials() const { return by_channel ? count : count * channels; }
};

// N vectors at a time. Two of bfloat16 are the numbers of even and of odd places in a piece of memory: so they part
// without a shuffle, and with AVX-512 what is written is a whole line of the cache.
template <class V, int N>
struct Several {
  V of[N];
};

// Whether memory is what limits; only then are pairs worth the time to compile them.
constexpr bool is_cheap(Act a) { return a == Act::linear || a == Act::relu || a == Act::lrelu; }

// Calls element(i, lanes, channel, n) for the vectors of each piece: i counts elements, n tells (as a constant) how
// many vectors are taken at once, and if it is one, `lanes` how many elements; `channel` is that of the first in a row
// of all channels. start(piece, channel) comes before a piece, finish(piece) after it, where `channel` is that of a row
// of one.
template <class T, bool pairs, class Start, class Element, class Finish>
ISG_INLINE void walk(const Pieces& p, int64_t begin, int64_t end, Start start, Element element, Finish finish) {
  constexpr int64_t kLanes = Access<T>::kLanes;
  int64_t row = p.by_channel ? begin / p.per_row : begin * p.block;
  int64_t part = p.by_channel ? begin % p.per_row : 0, channel = row % p.channels;
  for (int64_t piece = begin; piece < end; piece++) {
    const int64_t first = part * p.span, last = p.by_channel ? least(p.length, first + p.span) : p.length;
    const int64_t rows = p.by_channel ? 1 : least(p.block, p.rows - row);
    start(piece, channel);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t from = (row + r) * p.length;
      int64_t i = first;
      if constexpr (pairs && comes_in_pairs(T{}))
        for (; i + 2 * kLanes <= last; i += 2 * kLanes) element(from + i, kLanes, i, Constant<2>{});
      for (; i < last; i += kLanes) element(from + i, least(kLanes, last - i), i, Constant<1>{});
    }
    finish(piece);
    if (!p.by_channel) {
      row += p.block;
    } else if (++part == p.per_row) {
      part = 0;
      row++;
      if (++channel == p.channels) channel = 0;
    }
  }
}

// Vectors along the channels, or none: one number for a row of one channel, a load for a row of all channels.
template <class S, class V>
struct Channels {
  const S* data;
  bool by_channel;
  V same;
  ISG_INLINE Channels(const void* p, bool by_channel_) : data(static_cast<const S*>(p)), by_channel(by_channel_), same{} {}
  ISG_INLINE void start(int64_t channel) {
    if (data && by_channel) same = constant<V>(data[channel]);
  }
  template <int N>
  ISG_INLINE Several<V, N> at(int64_t channel, int64_t lanes) const {
    using A = Access<S>;
    if constexpr (N == 2) {
      if (!data || by_channel) return {same, same};
      const V a = A::load(data + channel), b = A::load(data + channel + A::kLanes);
      return {evens(a, b), odds(a, b)};
    } else {
      if (!data || by_channel) return {same};
      return {lanes == A::kLanes ? A::load(data + channel) : A::load_n(data + channel, static_cast<int>(lanes))};
    }
  }
};

template <int N, class T>
ISG_INLINE auto read(const T* p, int64_t lanes) {
  using A = Access<T>;
  using V = typename A::Vector;
  if constexpr (N == 2) return Several<V, 2>{lower_halves(p), upper_halves(p)};
  else return Several<V, 1>{lanes == A::kLanes ? A::load(p) : A::load_n(p, static_cast<int>(lanes))};
}
template <int N, class T, class V>
ISG_INLINE void write(T* p, const Several<V, N>& v, int64_t lanes, bool streaming) {
  using A = Access<T>;
  if constexpr (N == 2) put_halves(p, v.of[0], v.of[1], streaming);
  else if (lanes == A::kLanes) write_one(p, v.of[0], streaming);
  else A::store_n(p, v.of[0], static_cast<int>(lanes));
}

// The sum over each channel, by pieces.
template <class S, class V>
struct Sums {
  S* partials;  // null: not wanted
  bool by_channel;
  int64_t channels;
  S* block = nullptr;
  V sum{};
  ISG_INLINE void start(int64_t piece) {
    sum = V{};
    if (partials && !by_channel) {
      block = partials + piece * channels;
      memset(block, 0, static_cast<size_t>(channels) * sizeof(S));
    }
  }
  template <int N>
  ISG_INLINE void add(const Several<V, N>& v, int64_t channel, int64_t lanes) {
    using A = Access<S>;
    if (!partials) return;
    if constexpr (N == 2) {
      if (by_channel) {
        sum += v.of[0] + v.of[1];
      } else {
        S* const to = block + channel;
        A::store(to, A::load(to) + interleave_low(v.of[0], v.of[1]));
        A::store(to + A::kLanes, A::load(to + A::kLanes) + interleave_high(v.of[0], v.of[1]));
      }
    } else if (!by_channel) {
      write(block + channel, Several<V, 1>{read<1>(block + channel, lanes).of[0] + v.of[0]}, lanes, false);
    } else if (lanes == A::kLanes) {
      sum += v.of[0];
    } else {  // what lies beyond the end of a row isn't 0 after the bias
      S kept[A::kLanes] = {};
      A::store_n(kept, v.of[0], static_cast<int>(lanes));
      sum += A::load(kept);
    }
  }
  ISG_INLINE void finish(int64_t piece) {
    if (partials && by_channel) partials[piece] = static_cast<S>(total(sum));
  }
};

template <class S>
void add_up(const Pieces& p, const S* partials, S* db) {
  if (p.by_channel) {
    const int64_t rows_of_channel = p.rows / p.channels;
    parallel(p.channels, most(1, 32768 / (rows_of_channel * p.per_row)), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c++) {
        double sum = 0;
        for (int64_t n = 0; n < rows_of_channel; n++)
          for (int64_t k = 0; k < p.per_row; k++) sum += partials[(n * p.channels + c) * p.per_row + k];
        db[c] = static_cast<S>(sum);
      }
    });
  } else {
    parallel(p.channels, most(1, 32768 / p.blocks), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c++) {
        double sum = 0;
        for (int64_t k = 0; k < p.blocks; k++) sum += partials[k * p.channels + c];
        db[c] = static_cast<S>(sum);
      }
    });
  }
}

template <class S>
Numbers<S> numbers_of(const BiasActMath& m) {
  return {static_cast<S>(m.alpha), static_cast<S>(m.gain), m.clamp < 0 ? S(__builtin_inf()) : static_cast<S>(m.clamp)};
}

bool streams(const void* p, const Pieces& s, int64_t size) {
  return may_stream(p, s.length * size, s.rows * s.length * size);
}

template <class T, Act A>
int32_t forward(const BiasActForward& p) {
  using M = Access<T>;
  using S = typename M::Scalar;
  using V = typename M::Vector;
  const Pieces pieces(p.shape);
  const Numbers<S> m = numbers_of<S>(p.math);
  const T* const x = static_cast<const T*>(p.x);
  T* const y = static_cast<T*>(p.y);
  const bool streaming = streams(y, pieces, sizeof(T));
  parallel_by_value(pieces.count, pieces.grain(), [=](int64_t begin, int64_t end) __attribute__((always_inline)) {
    Channels<S, V> b(p.b, pieces.by_channel);
    walk<T, is_cheap(A)>(
        pieces, begin, end, [&](int64_t, int64_t channel) __attribute__((always_inline)) { b.start(channel); },
        [&](int64_t i, int64_t lanes, int64_t channel, auto n) __attribute__((always_inline)) {
          constexpr int N = n.value;
          auto v = read<N>(x + i, lanes);
          const auto bias = b.template at<N>(channel, lanes);
          for_each<N>(N, [&](int64_t k) __attribute__((always_inline)) {
            v.of[k] = clamped(Point<A, V, S>(v.of[k] + bias.of[k], m.alpha).value * m.gain, m.clamp);
          });
          write(y + i, v, lanes, streaming);
        },
        [](int64_t) {});
    if (streaming) stream_fence();
  });
  return kOk;
}

// d(result)/d(u) where the activation has this value, given its own derivative there.
template <class V, class S>
ISG_INLINE V within(V derivative, V value, const Numbers<S>& m) {
  const V v = value * m.gain, d = derivative * m.gain;
  return abs_of(v) > m.clamp ? V{} : v != v ? v : d;
}

template <class T, Act A>
int32_t backward(const BiasActBackward& p) {
  using M = Access<T>;
  using S = typename M::Scalar;
  using V = typename M::Vector;
  const Pieces pieces(p.shape);
  const Numbers<S> m = numbers_of<S>(p.math);
  const T *const dy = static_cast<const T*>(p.dy), *const ref = static_cast<const T*>(p.ref);
  T* const dx = static_cast<T*>(p.dx);
  const bool streaming = streams(dx, pieces, sizeof(T));
  parallel_by_value(pieces.count, pieces.grain(), [=](int64_t begin, int64_t end) __attribute__((always_inline)) {
    Channels<S, V> b(p.ref_is_output ? nullptr : p.b, pieces.by_channel), dy_b(p.dy_b, pieces.by_channel);
    Sums<S, V> sums{p.db ? static_cast<S*>(p.workspace) : nullptr, pieces.by_channel, pieces.channels};
    walk<T, is_cheap(A)>(
        pieces, begin, end,
        [&](int64_t piece, int64_t channel) __attribute__((always_inline)) {
          b.start(channel);
          dy_b.start(channel);
          sums.start(piece);
        },
        [&](int64_t i, int64_t lanes, int64_t channel, auto n) __attribute__((always_inline)) {
          constexpr int N = n.value;
          auto d = read<N>(dy + i, lanes);
          const auto more = dy_b.template at<N>(channel, lanes);
          for_each<N>(N, [&](int64_t k) __attribute__((always_inline)) { d.of[k] = d.of[k] + more.of[k]; });
          if (!ref) {
            for_each<N>(N, [&](int64_t k) __attribute__((always_inline)) { d.of[k] = d.of[k] * m.gain; });
          } else {
            // A result that tells the slope by its sign isn't clamped, and gain * act of it isn't either.
            const auto u = read<N>(ref + i, lanes), bias = b.template at<N>(channel, lanes);
            for_each<N>(N, [&](int64_t k) __attribute__((always_inline)) {
              const Point<A, V, S> point(u.of[k] + bias.of[k], m.alpha);
              d.of[k] = d.of[k] * within(point.slope, point.value, m);
            });
          }
          sums.add(d, channel, lanes);
          write(dx + i, d, lanes, streaming);
        },
        [&](int64_t piece) __attribute__((always_inline)) { sums.finish(piece); });
    if (streaming) stream_fence();
  });
  if (p.db) add_up(pieces, static_cast<const S*>(p.workspace), static_cast<S*>(p.db));
  return kOk;
}

template <class T, Act A>
int32_t double_backward(const BiasActDoubleBackward& p) {
  using M = Access<T>;
  using S = typename M::Scalar;
  using V = typename M::Vector;
  const Pieces pieces(p.shape);
  const Numbers<S> m = numbers_of<S>(p.math);
  const T *const ddx = static_cast<const T*>(p.ddx), *const dy = static_cast<const T*>(p.dy);
  const T* const x = static_cast<const T*>(p.x);
  T *const d_dy = static_cast<T*>(p.d_dy), *const d_x = static_cast<T*>(p.d_x);
  const bool streaming = streams(d_dy, pieces, sizeof(T)) && streams(d_x, pieces, sizeof(T));
  parallel_by_value(pieces.count, pieces.grain(), [=](int64_t begin, int64_t end) __attribute__((always_inline)) {
    Channels<S, V> b(p.b, pieces.by_channel), ddb(p.ddb, pieces.by_channel);
    Sums<S, V> sums{p.d_b ? static_cast<S*>(p.workspace) : nullptr, pieces.by_channel, pieces.channels};
    walk<T, false>(
        pieces, begin, end,
        [&](int64_t piece, int64_t channel) __attribute__((always_inline)) {
          b.start(channel);
          ddb.start(channel);
          sums.start(piece);
        },
        [&](int64_t i, int64_t lanes, int64_t channel, Constant<1>) __attribute__((always_inline)) {
          const Point<A, V, S> point(read<1>(x + i, lanes).of[0] + b.template at<1>(channel, lanes).of[0], m.alpha);
          V t = ddb.template at<1>(channel, lanes).of[0];
          if (ddx) t = t + read<1>(ddx + i, lanes).of[0];
          const Several<V, 1> first{t * within(point.slope, point.value, m)};
          const Several<V, 1> second{t * read<1>(dy + i, lanes).of[0] * within(point.curvature, point.value, m)};
          sums.add(second, channel, lanes);
          write(d_dy + i, first, lanes, streaming);
          write(d_x + i, second, lanes, streaming);
        },
        [&](int64_t piece) __attribute__((always_inline)) { sums.finish(piece); });
    if (streaming) stream_fence();
  });
  if (p.d_b) add_up(pieces, static_cast<const S*>(p.workspace), static_cast<S*>(p.d_b));
  return kOk;
}

#define ISG_BY_ACT(T, F, p)                                \
  switch ((p).math.act) {                                  \
    case Act::linear: return F<T, Act::linear>(p);         \
    case Act::relu: return F<T, Act::relu>(p);             \
    case Act::lrelu: return F<T, Act::lrelu>(p);           \
    case Act::tanh: return F<T, Act::tanh>(p);             \
    case Act::sigmoid: return F<T, Act::sigmoid>(p);       \
    case Act::elu: return F<T, Act::elu>(p);               \
    case Act::selu: return F<T, Act::selu>(p);             \
    case Act::softplus: return F<T, Act::softplus>(p);     \
    case Act::swish: return F<T, Act::swish>(p);           \
  }                                                        \
  return kBadShape

template <class T> int32_t forward_any(const BiasActForward& p) { ISG_BY_ACT(T, forward, p); }
template <class T> int32_t backward_any(const BiasActBackward& p) { ISG_BY_ACT(T, backward, p); }
template <class T> int32_t double_backward_any(const BiasActDoubleBackward& p) { ISG_BY_ACT(T, double_backward, p); }

#define ISG_BY_DTYPE(F, p)                       \
  switch (dtype) {                               \
    case DType::f32: return F<float>(p);         \
    case DType::f16: return F<Half>(p);          \
    case DType::bf16: return F<BFloat16>(p);     \
    case DType::f64: return F<double>(p);        \
  }                                              \
  return kUnsupportedDType

}  // namespace

int64_t bias_act_workspace(const BiasActShape& shape, DType dtype) {
  return Pieces(shape).partials() * (dtype == DType::f64 ? 8 : 4);
}
int32_t bias_act_forward(const BiasActForward& p, DType dtype, void*) { ISG_BY_DTYPE(forward_any, p); }
int32_t bias_act_backward(const BiasActBackward& p, DType dtype, void*) { ISG_BY_DTYPE(backward_any, p); }
int32_t bias_act_double_backward(const BiasActDoubleBackward& p, DType dtype, void*) {
  ISG_BY_DTYPE(double_backward_any, p);
}

}  // namespace isg::ISG_NS
