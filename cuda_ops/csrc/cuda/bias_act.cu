// y = clamp(gain * act(x + b)) with its first and second derivative; gradients of the bias are summed on the way.
//
// Forward is a flat map. The backward passes give each block a share of one channel (or, channels-last, of a tile
// of channels), which it sums in a fixed order; a second kernel adds up the shares. No atomics: deterministic.
#include "../ops.h"
#include "device.h"

#include <algorithm>
#include <cmath>
#include <limits>

#ifndef ISG_SHARE  // the tests lower it, so that small sums too are made of shares
#define ISG_SHARE 4096
#endif

namespace isg {
namespace {

// ---------------------------------------------------------------------------------------------------- mathematics

template <class A>
struct Math {
  A gain, slope;  // of a piecewise-linear act for positive and for other arguments
  A least;        // argument of a piecewise-linear act: 0 for relu, as -inf times its slope of 0 would be NaN
  A limit;        // of the clamp; infinity for none
  Act act;
  explicit Math(const BiasActMath& m)
      : gain(static_cast<A>(m.gain)),
        slope(static_cast<A>(m.act == Act::lrelu ? m.gain * m.alpha : m.act == Act::relu ? 0.0 : m.gain)),
        least(m.act == Act::relu ? A(0) : -std::numeric_limits<A>::infinity()),
        limit(m.clamp < 0 ? std::numeric_limits<A>::infinity() : static_cast<A>(m.clamp)),
        act(m.act) {}
};

inline bool is_piecewise(Act act) { return act == Act::linear || act == Act::relu || act == Act::lrelu; }

constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;

__device__ __forceinline__ float exp_of(float v) { return expf(v); }
__device__ __forceinline__ double exp_of(double v) { return exp(v); }
__device__ __forceinline__ float expm1_of(float v) { return expm1f(v); }
__device__ __forceinline__ double expm1_of(double v) { return expm1(v); }
__device__ __forceinline__ float log1p_of(float v) { return log1pf(v); }
__device__ __forceinline__ double log1p_of(double v) { return log1p(v); }
__device__ __forceinline__ float tanh_of(float v) { return tanhf(v); }
__device__ __forceinline__ double tanh_of(double v) { return tanh(v); }

template <class A>
__device__ __forceinline__ A sigmoid(A v) {
  return A(1) / (A(1) + exp_of(-v));
}

// The smooth acts and their derivatives, without gain.
template <class A>
__device__ __forceinline__ A smooth_value(Act act, A v) {
  switch (act) {
    case Act::tanh: return tanh_of(v);
    case Act::sigmoid: return sigmoid(v);
    case Act::elu: return v > A(0) ? v : expm1_of(v);
    case Act::selu: return A(kSeluScale) * (v > A(0) ? v : A(kSeluAlpha) * expm1_of(v));
    case Act::softplus: return v > A(0) ? v + log1p_of(exp_of(-v)) : log1p_of(exp_of(v));  // exp never overflows
    default: return v * sigmoid(v);
  }
}

template <class A>
__device__ __forceinline__ A smooth_first(Act act, A v) {
  switch (act) {
    case Act::tanh: {
      const A t = tanh_of(v);
      return A(1) - t * t;
    }
    case Act::elu: return v > A(0) ? A(1) : exp_of(v);
    case Act::selu: return A(kSeluScale) * (v > A(0) ? A(1) : A(kSeluAlpha) * exp_of(v));
    default: break;
  }
  const A s = sigmoid(v);
  if (act == Act::sigmoid) return s * (A(1) - s);
  return act == Act::softplus ? s : s * (A(1) + v * (A(1) - s));
}

template <class A>
__device__ __forceinline__ A smooth_second(Act act, A v) {
  switch (act) {
    case Act::tanh: {
      const A t = tanh_of(v);
      return A(-2) * t * (A(1) - t * t);
    }
    case Act::elu: return v > A(0) ? A(0) : exp_of(v);
    case Act::selu: return v > A(0) ? A(0) : A(kSeluScale * kSeluAlpha) * exp_of(v);
    default: break;
  }
  const A s = sigmoid(v), d = s * (A(1) - s);
  if (act == Act::softplus) return d;
  return act == Act::sigmoid ? d * (A(1) - A(2) * s) : d * (A(2) + v * (A(1) - A(2) * s));
}

// PIECEWISE kernels know linear, relu and lrelu only: they are the common case, and need few registers.
template <bool PIECEWISE, class A>
__device__ __forceinline__ A value(const Math<A>& m, A v) {
  A y;
  if (PIECEWISE || m.act <= Act::lrelu) {
    v = v < m.least ? m.least : v;
    y = v * (v > A(0) ? m.gain : m.slope);
  } else {
    y = smooth_value(m.act, v) * m.gain;
  }
  y = y > m.limit ? m.limit : y;  // lets NaN pass, unlike min; and one at a time, as the compiler would branch
  return y < -m.limit ? -m.limit : y;
}

template <class A>
__device__ __forceinline__ bool beyond(const Math<A>& m, A y) {
  return y > m.limit || y < -m.limit;
}

// Is a smooth act clamped at v?
template <class A>
__device__ __forceinline__ bool clamped(const Math<A>& m, A v) {
  return m.limit != std::numeric_limits<A>::infinity() && beyond(m, smooth_value(m.act, v) * m.gain);
}

// dy/dv at v, where v may be the output instead, as ops.h says.
template <bool PIECEWISE, class A>
__device__ __forceinline__ A first(const Math<A>& m, A v) {
  if (PIECEWISE || m.act <= Act::lrelu) {
    const A d = v > A(0) ? m.gain : m.slope;
    return beyond(m, v * d) ? A(0) : v != v ? v : d;
  }
  return clamped(m, v) ? A(0) : smooth_first(m.act, v) * m.gain;
}

template <class A>
__device__ __forceinline__ A second(const Math<A>& m, A v) {
  return m.act <= Act::lrelu || clamped(m, v) ? A(0) : smooth_second(m.act, v) * m.gain;
}

// -------------------------------------------------------------------------------------------------------- forward

struct ForwardMap {
  uint32_t packs, channels;
  Divisor per_inner, per_channels;  // in packs, where packs lie along that axis
  bool across;                      // a pack holds W channels; else it lies within one
};

template <class T, int W, bool PIECEWISE>
__global__ void __launch_bounds__(kThreads)
    bias_act_forward_kernel(const T* x, const acc_t<T>* b, T* y, const ForwardMap map, const Math<acc_t<T>> m) {
  using A = acc_t<T>;
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= map.packs) return;
  Pack<T, W> in = reinterpret_cast<const Pack<T, W>*>(x)[i], out;
  Pack<A, W> bias;
#pragma unroll
  for (int k = 0; k < W; k++) bias.v[k] = A(0);
  if (b) {
    const uint32_t row = map.per_inner.quotient(i);
    const uint32_t c = row - map.per_channels.quotient(row) * map.per_channels.d;
    if (map.across) {
      bias = reinterpret_cast<const Pack<A, W>*>(b)[c];
    } else {
      const A one = b[c];
#pragma unroll
      for (int k = 0; k < W; k++) bias.v[k] = one;
    }
  }
#pragma unroll
  for (int k = 0; k < W; k++) out.v[k] = from_acc<T>(value<PIECEWISE>(m, to_acc(in.v[k]) + bias.v[k]));
  reinterpret_cast<Pack<T, W>*>(y)[i] = out;
}

// ------------------------------------------------------------------------------------------------------- backward

// What the backward kernels do with a pack: `e` is its first element, `c` the constants of its channels.
template <class T_, bool PIECEWISE>
struct FirstOrder {
  using T = T_;
  using A = acc_t<T>;
  const T *dy, *ref;
  const A *dy_b, *b;
  T* dx;
  Math<A> m;
  struct Channel {
    A dy_b, b;
  };
  __device__ __forceinline__ Channel channel(uint32_t c) const { return {dy_b ? dy_b[c] : A(0), b ? b[c] : A(0)}; }

  template <int W, bool ACROSS>
  __device__ __forceinline__ void pack(uint32_t e, const Channel* c, A* sum) const {
    const Pack<T, W> g = *reinterpret_cast<const Pack<T, W>*>(dy + e);
    Pack<T, W> r, out;
#pragma unroll
    for (int k = 0; k < W; k++) r.v[k] = from_acc<T>(A(0));
    if (ref) r = *reinterpret_cast<const Pack<T, W>*>(ref + e);
#pragma unroll
    for (int k = 0; k < W; k++) {
      const int j = ACROSS ? k : 0;
      const A d = (to_acc(g.v[k]) + c[j].dy_b) * first<PIECEWISE>(m, to_acc(r.v[k]) + c[j].b);
      out.v[k] = from_acc<T>(d);
      sum[j] += d;
    }
    *reinterpret_cast<Pack<T, W>*>(dx + e) = out;
  }
};

template <class T_>
struct SecondOrder {
  using T = T_;
  using A = acc_t<T>;
  const T *ddx, *dy, *x;
  const A *ddb, *b;
  T *d_dy, *d_x;
  Math<A> m;
  struct Channel {
    A ddb, b;
  };
  __device__ __forceinline__ Channel channel(uint32_t c) const { return {ddb ? ddb[c] : A(0), b ? b[c] : A(0)}; }

  template <int W, bool ACROSS>
  __device__ __forceinline__ void pack(uint32_t e, const Channel* c, A* sum) const {
    const Pack<T, W> g = *reinterpret_cast<const Pack<T, W>*>(dy + e), at = *reinterpret_cast<const Pack<T, W>*>(x + e);
    Pack<T, W> t, out_dy, out_x;
#pragma unroll
    for (int k = 0; k < W; k++) t.v[k] = from_acc<T>(A(0));
    if (ddx) t = *reinterpret_cast<const Pack<T, W>*>(ddx + e);
#pragma unroll
    for (int k = 0; k < W; k++) {
      const int j = ACROSS ? k : 0;
      const A v = to_acc(at.v[k]) + c[j].b, tk = to_acc(t.v[k]) + c[j].ddb;
      const A d = tk * to_acc(g.v[k]) * second(m, v);
      out_dy.v[k] = from_acc<T>(tk * first<false>(m, v));
      out_x.v[k] = from_acc<T>(d);
      sum[j] += d;
    }
    *reinterpret_cast<Pack<T, W>*>(d_dy + e) = out_dy;
    *reinterpret_cast<Pack<T, W>*>(d_x + e) = out_x;
  }
};

template <class A>
struct Sums {
  A* to;  // [channels, slots], or null if nobody wants them
  uint32_t slots, slot;
};

template <class A>
__device__ __forceinline__ A warp_sum(A v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(kAllLanes, v, d);
  return v;
}

// Order [outer, channels, inner]: a block takes one of `splits` shares of one channel.
struct Rows {
  uint32_t channels, packs, per_split, splits;  // packs: of one channel
  Divisor per_row;                              // packs of one channel that lie together
};

template <int W, class Op>
__global__ void __launch_bounds__(kThreads) bias_act_rows(const Op op, const Rows g, const Sums<typename Op::A> sums) {
  using A = typename Op::A;
  ISG_SHARED(A, of_warp, [kThreads / 32]);
  const uint32_t c = blockIdx.x / g.splits, s = blockIdx.x - c * g.splits;
  const uint32_t end = min(g.packs, (s + 1) * g.per_split);
  const typename Op::Channel channel = op.channel(c);
  A sum = A(0);
  for (uint32_t i = s * g.per_split + threadIdx.x; i < end; i += kThreads) {
    const uint32_t o = g.per_row.quotient(i), q = i - o * g.per_row.d;
    op.template pack<W, false>(((o * g.channels + c) * g.per_row.d + q) * W, &channel, &sum);
  }
  if (!sums.to) return;
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / 32; w++) sum += of_warp[w];
    sums.to[size_t(c) * sums.slots + sums.slot + s] = sum;
  }
}

// Order [outer, channels]: a block takes a tile of channels, 2^lanes packs wide, and a share of the outer axis.
struct Columns {
  uint32_t channels, outer, per_split, splits, lanes;
};

template <int W, class Op>
__global__ void __launch_bounds__(kThreads)
    bias_act_columns(const Op op, const Columns g, const Sums<typename Op::A> sums) {
  using A = typename Op::A;
  ISG_SHARED(A, part, [W][kThreads]);
  const uint32_t tile = blockIdx.x / g.splits, s = blockIdx.x - tile * g.splits;
  const uint32_t end = min(g.outer, (s + 1) * g.per_split), rows = kThreads >> g.lanes;
  const uint32_t row = threadIdx.x >> g.lanes;
  const uint32_t c = ((tile << g.lanes) + threadIdx.x - (row << g.lanes)) * W;
  const bool inside = c < g.channels;
  A sum[W];
#pragma unroll
  for (int k = 0; k < W; k++) sum[k] = A(0);
  if (inside) {
    typename Op::Channel channel[W];
#pragma unroll
    for (int k = 0; k < W; k++) channel[k] = op.channel(c + k);
    for (uint32_t o = s * g.per_split + row; o < end; o += rows)
      op.template pack<W, true>(o * g.channels + c, channel, sum);
  }
  if (!sums.to) return;
#pragma unroll
  for (int k = 0; k < W; k++) part[k][threadIdx.x] = sum[k];
  for (uint32_t half = rows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half)
#pragma unroll
      for (int k = 0; k < W; k++) part[k][threadIdx.x] += part[k][threadIdx.x + (half << g.lanes)];
  }
  // What a thread of row 0 reads here it wrote by itself.
  if (row == 0 && inside)
#pragma unroll
    for (int k = 0; k < W; k++) sums.to[size_t(c + k) * sums.slots + sums.slot + s] = part[k][threadIdx.x];
}

// Second stage: a warp a channel.
template <class A>
__global__ void __launch_bounds__(kThreads) bias_act_add_up(const A* parts, A* to, uint32_t channels, uint32_t slots) {
  const uint32_t c = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  A sum = A(0);
  if (c < channels)
    for (uint32_t s = threadIdx.x % 32; s < slots; s += 32) sum += parts[size_t(c) * slots + s];
  sum = warp_sum(sum);
  if (c < channels && threadIdx.x % 32 == 0) to[c] = sum;
}

// ----------------------------------------------------------------------------------------------------------- host

bool bad(const BiasActShape& s) {
  if (s.outer < 0 || s.channels < 0 || s.channels > INT32_MAX || s.inner < 0) return true;
  // The product of the sizes must fit 62 bits, so that no size in bytes overflows.
  constexpr int64_t kMost = int64_t(1) << 60;
  const int64_t oc = s.channels && s.outer > kMost / s.channels ? -1 : s.outer * s.channels;
  return oc < 0 || (s.inner && oc > kMost / s.inner);
}

bool bad(const BiasActMath& m) { return m.act < Act::linear || m.act > Act::swish || m.clamp != m.clamp; }

int64_t elements(const BiasActShape& s) { return s.outer * s.channels * s.inner; }

// How a tensor of any size is cut into contiguous pieces of at most kMaxElements, and the shares of each piece.
struct Plan {
  BiasActShape piece;
  int64_t inner_pieces, splits, slots;  // slots: partial sums a channel

  explicit Plan(const BiasActShape& s) : piece(s) {
    if (elements(s) > kMaxElements) {
      piece.outer = std::max<int64_t>(1, kMaxElements / (s.channels * s.inner));
      if (s.channels * s.inner > kMaxElements) {
        piece.channels = std::max<int64_t>(1, kMaxElements / s.inner);
        if (s.inner > kMaxElements) piece.inner = kMaxElements / 64 * 64;
      }
    }
    inner_pieces = ceil_div(s.inner, piece.inner);
    // About 2048 blocks fill a large GPU; a block should have some thousand elements to make up for its summing.
    const int64_t tiles = piece.inner > 1 ? piece.channels : ceil_div(piece.channels, 128);
    const int64_t most = piece.inner > 1 ? ceil_div(piece.outer * piece.inner, ISG_SHARE) : ceil_div(piece.outer, ISG_SHARE / 64);
    splits = std::max<int64_t>(1, std::min(most, ceil_div(2048, tiles)));
    slots = ceil_div(s.outer, piece.outer) * inner_pieces * splits;
  }

  // f(first element, first channel, shape, first slot) for each piece, until one fails.
  template <class F>
  int32_t each(const BiasActShape& s, F f) const {
    int64_t slot = 0;
    for (int64_t o = 0; o < s.outer; o += piece.outer) {
      for (int64_t i = 0; i < s.inner; i += piece.inner, slot += splits)
        for (int64_t c = 0; c < s.channels; c += piece.channels) {
          const BiasActShape part{std::min(piece.outer, s.outer - o), std::min(piece.channels, s.channels - c),
                                  std::min(piece.inner, s.inner - i)};
          if (const int32_t rc = f((o * s.channels + c) * s.inner + i, c, part, slot)) return rc;
        }
    }
    return kOk;
  }
};

// Without anything that depends on the channel, a tensor is one row.
BiasActShape flattened(const BiasActShape& s, bool channels_matter) {
  return channels_matter && s.channels > 1 ? s : BiasActShape{1, 1, elements(s)};
}

template <class T, int W, bool PIECEWISE>
int32_t launch_forward(const T* x, const acc_t<T>* b, T* y, const BiasActShape& s, const BiasActMath& math, void* stream) {
  if (elements(s) == 0) return kOk;
  const bool across = s.inner == 1 && s.channels > 1;
  const ForwardMap map{static_cast<uint32_t>(elements(s) / W), static_cast<uint32_t>(s.channels),
                       Divisor(across ? 1 : s.inner / W), Divisor(across ? s.channels / W : s.channels), across};
  return launch(bias_act_forward_kernel<T, W, PIECEWISE>, dim3(static_cast<unsigned>(ceil_div(map.packs, kThreads))),
                dim3(kThreads), stream, x, b, y, map, Math<acc_t<T>>(math));
}

template <class T, bool PIECEWISE>
int32_t forward(const BiasActForward& p, void* stream) {
  using A = acc_t<T>;
  constexpr int W = 16 / sizeof(T);
  const BiasActShape shape = flattened(p.shape, p.b);
  return Plan(shape).each(shape, [&](int64_t e, int64_t c, const BiasActShape& s, int64_t) -> int32_t {
    const T* x = static_cast<const T*>(p.x) + e;
    const A* b = p.b ? static_cast<const A*>(p.b) + c : nullptr;
    T* y = static_cast<T*>(p.y) + e;
    const bool lines_up = aligned<T, W>(x) && aligned<T, W>(y);
    if (s.outer == 1 && s.channels == 1 && lines_up) {  // what is left over by whole packs is done by itself
      const int64_t whole = s.inner / W * W;
      const BiasActShape main{1, 1, whole}, rest{1, 1, s.inner - whole};
      if (const int32_t rc = launch_forward<T, W, PIECEWISE>(x, b, y, main, p.math, stream)) return rc;
      return launch_forward<T, 1, PIECEWISE>(x + whole, b, y + whole, rest, p.math, stream);
    }
    const bool fits = s.inner == 1 ? s.channels % W == 0 && aligned<A, W>(b) : s.inner % W == 0;
    return fits && lines_up ? launch_forward<T, W, PIECEWISE>(x, b, y, s, p.math, stream)
                            : launch_forward<T, 1, PIECEWISE>(x, b, y, s, p.math, stream);
  });
}

// One piece of a backward pass, with packs of W if `packed`.
template <int W, class Op>
int32_t launch_backward(const Op& op, const BiasActShape& s, int64_t splits, Sums<typename Op::A> sums, void* stream) {
  if (elements(s) == 0) return kOk;
  if (s.inner == 1 && s.channels > 1) {
    Columns g{static_cast<uint32_t>(s.channels), static_cast<uint32_t>(s.outer), 0, 0, 0};
    while (g.lanes < 5 && (int64_t(W) << g.lanes) < s.channels) g.lanes++;
    if (!sums.to) splits = ceil_div(s.outer, (kThreads >> g.lanes) * 4);
    g.splits = static_cast<uint32_t>(splits);
    g.per_split = static_cast<uint32_t>(ceil_div(s.outer, splits));
    const int64_t tiles = ceil_div(s.channels, int64_t(W) << g.lanes);
    return launch(bias_act_columns<W, Op>, dim3(static_cast<unsigned>(tiles * splits)), dim3(kThreads), stream, op, g, sums);
  }
  const int64_t packs = s.outer * s.inner / W;
  if (!sums.to) splits = ceil_div(packs, kThreads);
  const Rows g{static_cast<uint32_t>(s.channels), static_cast<uint32_t>(packs),
               static_cast<uint32_t>(ceil_div(packs, splits)), static_cast<uint32_t>(splits), Divisor(s.inner / W)};
  return launch(bias_act_rows<W, Op>, dim3(static_cast<unsigned>(s.channels * splits)), dim3(kThreads), stream, op, g, sums);
}

// make(e, c): the op for the piece that begins at element e and channel c; lines_up(op): may it use packs of W?
template <int W, class A, class Make, class LinesUp>
int32_t backward(const BiasActShape& whole, A* db, void* workspace, bool channels_matter, Make make, LinesUp lines_up, void* stream) {
  const BiasActShape shape = flattened(whole, channels_matter || db);
  const Plan plan(shape);
  A* parts = plan.slots > 1 ? static_cast<A*>(workspace) : db;
  const int32_t rc = plan.each(shape, [&](int64_t e, int64_t c, const BiasActShape& s, int64_t slot) -> int32_t {
    const auto op = make(e, c);
    const Sums<A> sums{db ? parts + c * plan.slots : nullptr, static_cast<uint32_t>(plan.slots), static_cast<uint32_t>(slot)};
    if constexpr (W > 1) {
      if (lines_up(op)) {
        if ((s.inner == 1 ? s.channels : s.inner) % W == 0) return launch_backward<W>(op, s, plan.splits, sums, stream);
        if (s.outer == 1 && s.channels == 1 && !db) {
          const int64_t packed = s.inner / W * W;
          if (const int32_t failed = launch_backward<W>(op, {1, 1, packed}, 1, sums, stream)) return failed;
          return launch_backward<1>(make(e + packed, c), {1, 1, s.inner - packed}, 1, sums, stream);
        }
      }
    }
    return launch_backward<1>(op, s, plan.splits, sums, stream);
  });
  if (rc || !db || plan.slots == 1) return rc;
  const int64_t blocks = ceil_div(shape.channels, kThreads / 32);
  return launch(bias_act_add_up<A>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), stream, static_cast<const A*>(parts),
                db, static_cast<uint32_t>(shape.channels), static_cast<uint32_t>(plan.slots));
}

// Doubles are for checking gradients: one kernel for all acts, and no packs.
template <class T>
constexpr int kBackwardPack = sizeof(T) == 8 ? 1 : 4;

template <class T, bool PIECEWISE>
int32_t first_order(const BiasActBackward& p, void* stream) {
  using A = acc_t<T>;
  using Op = FirstOrder<T, PIECEWISE>;
  constexpr int W = kBackwardPack<T>;
  const auto make = [&](int64_t e, int64_t c) {
    return Op{static_cast<const T*>(p.dy) + e,
              p.ref ? static_cast<const T*>(p.ref) + e : nullptr,
              p.dy_b ? static_cast<const A*>(p.dy_b) + c : nullptr,
              p.b && !p.ref_is_output ? static_cast<const A*>(p.b) + c : nullptr,
              static_cast<T*>(p.dx) + e,
              Math<A>(p.math)};
  };
  const auto lines_up = [](const Op& op) { return aligned<T, W>(op.dy) && aligned<T, W>(op.ref) && aligned<T, W>(op.dx); };
  return backward<W>(p.shape, static_cast<A*>(p.db), p.workspace, p.b || p.dy_b, make, lines_up, stream);
}

template <class T>
int32_t second_order(const BiasActDoubleBackward& p, void* stream) {
  using A = acc_t<T>;
  using Op = SecondOrder<T>;
  constexpr int W = kBackwardPack<T>;
  const auto make = [&](int64_t e, int64_t c) {
    return Op{p.ddx ? static_cast<const T*>(p.ddx) + e : nullptr,
              static_cast<const T*>(p.dy) + e,
              static_cast<const T*>(p.x) + e,
              p.ddb ? static_cast<const A*>(p.ddb) + c : nullptr,
              p.b ? static_cast<const A*>(p.b) + c : nullptr,
              static_cast<T*>(p.d_dy) + e,
              static_cast<T*>(p.d_x) + e,
              Math<A>(p.math)};
  };
  const auto lines_up = [](const Op& op) {
    return aligned<T, W>(op.ddx) && aligned<T, W>(op.dy) && aligned<T, W>(op.x) && aligned<T, W>(op.d_dy) && aligned<T, W>(op.d_x);
  };
  return backward<W>(p.shape, static_cast<A*>(p.d_b), p.workspace, p.b || p.ddb, make, lines_up, stream);
}

// An empty tensor has null pointers, and no blocks to launch; but the sums over nothing are 0.
template <class A>
int32_t zero_sums(const BiasActShape& s, void* sums, void* stream) {
  if (!sums || s.channels == 0) return kOk;
  const int64_t blocks = ceil_div(s.channels, kThreads / 32);
  return launch(bias_act_add_up<A>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), stream, static_cast<const A*>(nullptr),
                static_cast<A*>(sums), static_cast<uint32_t>(s.channels), uint32_t(0));
}

}  // namespace

namespace cuda {

int64_t bias_act_workspace(const BiasActShape& s, DType t) {
  if (bad(s) || elements(s) == 0) return 0;
  const BiasActShape shape = flattened(s, true);
  const int64_t slots = Plan(shape).slots;
  return slots > 1 ? slots * shape.channels * (t == DType::f64 ? 8 : 4) : 0;
}

int32_t bias_act_forward(const BiasActForward& p, DType t, void* stream) {
  if (bad(p.shape) || bad(p.math)) return kBadShape;
  if (elements(p.shape) == 0) return kOk;
  const bool piecewise = is_piecewise(p.math.act);
  switch (t) {
    case DType::f32: return piecewise ? forward<float, true>(p, stream) : forward<float, false>(p, stream);
    case DType::f16: return piecewise ? forward<__half, true>(p, stream) : forward<__half, false>(p, stream);
    case DType::bf16: return piecewise ? forward<__nv_bfloat16, true>(p, stream) : forward<__nv_bfloat16, false>(p, stream);
    case DType::f64: return forward<double, false>(p, stream);
  }
  return kUnsupportedDType;
}

int32_t bias_act_backward(const BiasActBackward& p, DType t, void* stream) {
  const bool piecewise = is_piecewise(p.math.act);
  if (bad(p.shape) || bad(p.math)) return kBadShape;
  if (elements(p.shape) == 0) return t == DType::f64 ? zero_sums<double>(p.shape, p.db, stream) : zero_sums<float>(p.shape, p.db, stream);
  if (!p.ref && (p.math.act != Act::linear || p.math.clamp >= 0)) return kBadShape;
  if (p.ref_is_output && (!piecewise || p.math.clamp >= 0 || !(p.math.gain > 0))) return kBadShape;
  if (p.db && !p.workspace && cuda::bias_act_workspace(p.shape, t) > 0) return kBadShape;
  switch (t) {
    case DType::f32: return piecewise ? first_order<float, true>(p, stream) : first_order<float, false>(p, stream);
    case DType::f16: return piecewise ? first_order<__half, true>(p, stream) : first_order<__half, false>(p, stream);
    case DType::bf16: return piecewise ? first_order<__nv_bfloat16, true>(p, stream) : first_order<__nv_bfloat16, false>(p, stream);
    case DType::f64: return first_order<double, false>(p, stream);
  }
  return kUnsupportedDType;
}

int32_t bias_act_double_backward(const BiasActDoubleBackward& p, DType t, void* stream) {
  if (bad(p.shape) || bad(p.math)) return kBadShape;
  if (elements(p.shape) == 0) return t == DType::f64 ? zero_sums<double>(p.shape, p.d_b, stream) : zero_sums<float>(p.shape, p.d_b, stream);
  if (p.d_b && !p.workspace && cuda::bias_act_workspace(p.shape, t) > 0) return kBadShape;
  switch (t) {
    case DType::f32: return second_order<float>(p, stream);
    case DType::f16: return second_order<__half>(p, stream);
    case DType::bf16: return second_order<__nv_bfloat16>(p, stream);
    case DType::f64: return second_order<double>(p, stream);
  }
  return kUnsupportedDType;
}

}  // namespace cuda
}  // namespace isg
