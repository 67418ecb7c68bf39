// Upsample, pad, filter, downsample.
//
// The fast kernels march down the image: a thread keeps a few neighbouring outputs of the rows that are under way
// in registers, and adds each input row to them as it comes, so that a row is read once. In NCHW order a thread
// holds neighbours along x and takes the pixels beside its own from the lanes beside it; in NHWC order it holds
// channels of one pixel. What they don't take (other factors, longer filters) goes to a kernel that takes anything.
#include "../ops.h"
#include "device.h"

#include <algorithm>
#include <numeric>

#ifndef ISG_MAX_BLOCKS  // the tests lower it, so that loops over the grid really loop
#define ISG_MAX_BLOCKS 1048576
#endif
#ifndef ISG_FEW_THREADS  // below so many threads, images are cut into shorter strips
#define ISG_FEW_THREADS 131072
#endif

namespace isg {
namespace {

constexpr int kTaps = 4;  // of the fast kernels; shorter filters are filled up with zeros

// How many blocks should fit a multiprocessor: all, but where ptxas for 10.x would spill to get there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 == 10
constexpr int kPlainBlocks = 6;
#else
constexpr int kPlainBlocks = kFullBlocks;
#endif
template <class T, int UP, int DOWN, int LEFT>
constexpr int kBlocks = sizeof(T) == 8 || LEFT < 0 ? 2 : UP * DOWN == 1 ? kPlainBlocks : kFullBlocks;

// One axis once the common divisor of up and down is taken out: only every step-th tap, from tap0 on, ever meets a
// pixel, and what is left is an axis with factors up / divisor and down / divisor.
struct Axis {
  int32_t in, out, taps, up, down, pad;
  int32_t all_taps, tap0, step;
  int32_t first_tap = 0;  // zeros before the taps, among the kTaps of a fast kernel
  explicit Axis(const UpfirdnAxis& a) : in(a.in), out(a.out), all_taps(a.taps) {
    step = std::gcd(a.up, a.down);
    up = a.up / step;
    down = a.down / step;
    tap0 = (a.pad % step + step) % step;
    pad = (a.pad - tap0) / step;
    taps = tap0 < a.taps ? (a.taps - tap0 + step - 1) / step : 0;
  }
};

template <class T>
struct Fir {
  const T* x;
  const float* f;
  T* y;
  int64_t images;  // NCHW: planes
  int32_t channels;
  Axis ax, ay;
  bool separable, flip;
  acc_t<T> gain;
};

// Tap k (of those that matter) of an axis, in the order in which taps slide over pixels.
__device__ __forceinline__ int tap_index(const Axis& a, bool flip, int k) {
  const int i = a.tap0 + k * a.step;
  return flip ? i : a.all_taps - 1 - i;
}

template <class T>
__device__ __forceinline__ acc_t<T> tap_along(const Fir<T>& p, const Axis& a, int k) {
  k -= a.first_tap;
  return static_cast<unsigned>(k) < static_cast<unsigned>(a.taps) ? acc_t<T>(p.f[tap_index(a, p.flip, k)]) : acc_t<T>(0);
}

template <class T>
__device__ __forceinline__ acc_t<T> tap_at(const Fir<T>& p, int ky, int kx) {
  if (p.separable) return tap_along(p, p.ay, ky) * tap_along(p, p.ax, kx) * p.gain;
  kx -= p.ax.first_tap;
  if (ky >= p.ay.taps || static_cast<unsigned>(kx) >= static_cast<unsigned>(p.ax.taps)) return acc_t<T>(0);
  return acc_t<T>(p.f[int64_t(tap_index(p.ay, p.flip, ky)) * p.ax.all_taps + tap_index(p.ax, p.flip, kx)]) * p.gain;
}

// ----------------------------------------------------------------------------------------------------- NCHW, fast

// A block works on strips of the same rows of its planes; a segment of `1 << lanes` threads spans a plane's width or,
// if that is more than a warp's, some part of it.
struct Strips {
  uint32_t units, segments, strips;  // segments of all planes, of a row; strips of a plane
  int32_t lanes, rows;               // log2 of the threads along x; output rows of a strip
  int32_t left, column;              // of the pixels under a thread's outputs, those left of its own; thread 0's own
  bool packed_in, packed_out;
};

constexpr int kAnyLeft = -1;  // for the kernels that take any padding, and rows of any size and alignment

template <int UP, int DOWN>
struct Tile {
  static constexpr int kOwn = UP == 2 ? 2 : 4;                                     // pixels a thread loads by itself
  static constexpr int kOut = kOwn * UP / DOWN;                                    // outputs it makes of each row
  static constexpr int kWindow = UP == 2 ? kOwn + 2 : (kOut - 1) * DOWN + kTaps;  // pixels these need
};

// What a thread must load by itself. Lowest bits: its k-th pixel from beside, as it is at that end of its segment.
constexpr unsigned kLoadPack = 1u << 4, kLoadOne = 1u << 8, kAtEnd = 1u << 16, kLoads = kAtEnd - 1;

// The pixels under a thread's outputs in one row. Of the k-th and the (k + kOwn)-th of them one is its own, and the
// other is that of the lane to the left or to the right; so its own are turned by `left` places first.
template <class T, int UP, int DOWN, int LEFT>
__device__ __forceinline__ void window_of(const T* row, unsigned loads, int any_left,
                                          acc_t<T> (&w)[Tile<UP, DOWN>::kWindow]) {
  using A = acc_t<T>;
  constexpr int kOwn = Tile<UP, DOWN>::kOwn, kWindow = Tile<UP, DOWN>::kWindow;
  const int left = LEFT == kAnyLeft ? any_left : LEFT;
  A own[kOwn];
#pragma unroll
  for (int k = 0; k < kOwn; k++) own[k] = A(0);
  if (loads & kLoadPack) {
    const Pack<T, kOwn> v = *reinterpret_cast<const Pack<T, kOwn>*>(row);
#pragma unroll
    for (int k = 0; k < kOwn; k++) own[k] = to_acc(v.v[k]);
  } else if (LEFT == kAnyLeft) {
#pragma unroll
    for (int k = 0; k < kOwn; k++)
      if (loads & kLoadOne << k) own[k] = to_acc(row[k]);
  }
  if (left & 1) {
    const A end = own[kOwn - 1];
#pragma unroll
    for (int k = kOwn - 1; k > 0; k--) own[k] = own[k - 1];
    own[0] = end;
  }
  if (kOwn == 4 && left & 2) {
#pragma unroll
    for (int k = 0; k < kOwn / 2; k++) {
      const A v = own[k];
      own[k] = own[(k + 2) % kOwn];
      own[(k + 2) % kOwn] = v;
    }
  }
#pragma unroll
  for (int k = 0; k < kOwn; k++) {
    const bool to_left = k < left;
    if (LEFT != kAnyLeft && !to_left && k + kOwn >= kWindow) {
      w[k] = own[k];
      continue;
    }
    // Beyond the ends of a segment that is narrower than the warp lies another one, whose pixels don't belong here.
    A v;
    if (LEFT == kAnyLeft)
      v = __shfl_sync(kAllLanes, own[k], threadIdx.x + (to_left ? -1 : 1));
    else
      v = to_left ? __shfl_up_sync(kAllLanes, own[k], 1) : __shfl_down_sync(kAllLanes, own[k], 1);
    if (loads & kAtEnd << k) v = A(0);
    if (loads & 1u << k) v = to_acc(row[to_left ? k - left : k + kOwn - left]);
    w[k] = to_left ? v : own[k];
    if (k + kOwn < kWindow) w[k + kOwn] = to_left ? own[k] : v;
  }
}

// Reads a tap from shared memory anew. The compiler would hold all taps in registers, which takes so many that fewer
// warps would fit.
template <class A>
__device__ __forceinline__ A fresh(const A& tap) {
  return *const_cast<const volatile A*>(&tap);
}

// out[c] += the window from pixel c * STRIDE on, times a row of taps.
template <int STRIDE, class A, int N, int OUT>
__device__ __forceinline__ void add_row(A (&out)[OUT], const A (&w)[N], const A (&taps)[kTaps]) {
#pragma unroll
  for (int k = 0; k < kTaps; k++) {
    const A t = fresh(taps[k]);
#pragma unroll
    for (int c = 0; c < OUT; c++) out[c] += w[c * STRIDE + k] * t;
  }
}

template <class T, int UP, int DOWN, bool SEPARABLE, int LEFT>
__global__ void __launch_bounds__(kThreads, kBlocks<T, UP, DOWN, LEFT>)
    upfirdn2d_planes(const Fir<T> p, const Strips g) {
  using A = acc_t<T>;
  using Tl = Tile<UP, DOWN>;
  constexpr int kOwn = Tl::kOwn, kOut = Tl::kOut, kWindow = Tl::kWindow;
  // 2-D: a row of taps each. Separable: along x, along y.
  ISG_SHARED(A, taps, [kTaps][kTaps]);
  if (threadIdx.x < kTaps * kTaps) {
    const int ky = threadIdx.x / kTaps, q = threadIdx.x % kTaps;
    // Up 2: the two taps of the first output's phase come first, then those of the other.
    const int kx = UP == 2 ? ((q / 2) ^ (p.ax.pad & 1)) + q % 2 * 2 : q;
    taps[ky][q] = !SEPARABLE ? tap_at(p, ky, kx) : ky == 0 ? tap_along(p, p.ax, kx) : tap_along(p, p.ay, q) * p.gain;
  }
  __syncthreads();

  const int lane = threadIdx.x & ((1 << g.lanes) - 1);
  const uint32_t group = blockIdx.x / g.strips, unit = (group * kThreads + threadIdx.x) >> g.lanes;
  const uint32_t plane = unit / g.segments;
  const int column = static_cast<int>(((unit - plane * g.segments) << g.lanes) + lane);
  const int ox = column * kOut, ix = column * kOwn + g.column;
  const int oy = static_cast<int>(blockIdx.x - group * g.strips) * g.rows;

  const int left = LEFT == kAnyLeft ? g.left : LEFT;
  unsigned loads = 0;
  for (int k = 0; k < kOwn; k++) {
    const int beside = k < left ? k - left : k + kOwn - left;  // the k-th pixel from beside; unused ones too
    if (lane == (k < left ? 0 : (1 << g.lanes) - 1)) {
      loads |= kAtEnd << k;
      if (static_cast<unsigned>(ix + beside) < static_cast<unsigned>(p.ax.in)) loads |= 1u << k;
    }
    if (static_cast<unsigned>(ix + k) < static_cast<unsigned>(p.ax.in))
      loads |= LEFT != kAnyLeft || g.packed_in ? kLoadPack : kLoadOne << k;
  }
  // An idle thread runs along, as the lanes beside it expect it at each shuffle; it loads and stores nothing.
  if (unit >= g.units) loads &= ~kLoads;
  const bool stores = unit < g.units && ox < p.ax.out;

  const int v = oy * DOWN - p.ay.pad;  // the first output row's place in the upsampled image
  const int iy = UP == 2 ? (v + 1) >> 1 : v;
  // Not pointers, for the sake of registers; the host sees to it that 32 bits do.
  int in = (static_cast<int>(plane) * p.ay.in + iy) * p.ax.in + ix;
  int out = (static_cast<int>(plane) * p.ay.out + oy) * p.ax.out + ox;

  // Of the strip's k-th input row; to be called for k = 0, 1, ...
  const auto next_window = [&](int k, A(&w)[kWindow]) {
    const bool inside = static_cast<unsigned>(iy + k) < static_cast<unsigned>(p.ay.in);
    window_of<T, UP, DOWN, LEFT>(p.x + in, inside ? loads : loads & ~kLoads, g.left, w);
    in += p.ax.in;
  };
  const auto store = [&](int i, const A(&o)[kOut]) {  // row i of the strip, which may lie above or below it
    if (stores && i >= 0 && i < g.rows && oy + i < p.ay.out) {
      if (LEFT != kAnyLeft || g.packed_out) {
        Pack<T, kOut> pack;
#pragma unroll
        for (int c = 0; c < kOut; c++) pack.v[c] = from_acc<T>(o[c]);
        *reinterpret_cast<Pack<T, kOut>*>(p.y + out) = pack;
      } else {
#pragma unroll
        for (int c = 0; c < kOut; c++)
          if (ox + c < p.ax.out) p.y[out + c] = from_acc<T>(o[c]);
      }
      out += p.ax.out;
    }
  };

  if constexpr (UP == 1 && DOWN == 1) {
    A a[3][kOut] = {};  // the three rows under way: the sums over the input rows so far
    for (int i = 1 - kTaps; i < g.rows; i++) {
      A w[kWindow], o[kOut];
      next_window(i + kTaps - 1, w);
      if constexpr (SEPARABLE) {
        A h[kOut] = {};
        add_row<1>(h, w, taps[0]);
        const A t0 = fresh(taps[1][0]), t1 = fresh(taps[1][1]), t2 = fresh(taps[1][2]), t3 = fresh(taps[1][3]);
#pragma unroll
        for (int c = 0; c < kOut; c++) {
          o[c] = a[0][c] + h[c] * t3;
          a[0][c] = a[1][c] + h[c] * t2;
          a[1][c] = a[2][c] + h[c] * t1;
          a[2][c] = h[c] * t0;
        }
      } else {
#pragma unroll
        for (int c = 0; c < kOut; c++) o[c] = a[0][c], a[0][c] = a[1][c], a[1][c] = a[2][c], a[2][c] = A(0);
        add_row<1>(o, w, taps[3]);
        add_row<1>(a[0], w, taps[2]);
        add_row<1>(a[1], w, taps[1]);
        add_row<1>(a[2], w, taps[0]);
      }
      store(i, o);
    }
  } else if constexpr (DOWN == 2) {
    A a[kOut] = {};
    for (int i = -1; i < g.rows; i++) {
      A w[kWindow], o[kOut];
#pragma unroll
      for (int c = 0; c < kOut; c++) o[c] = a[c], a[c] = A(0);
#pragma unroll
      for (int k = 0; k < 2; k++) {
        next_window(2 * i + 2 + k, w);
        if constexpr (SEPARABLE) {
          A h[kOut] = {};
          add_row<2>(h, w, taps[0]);
#pragma unroll
          for (int c = 0; c < kOut; c++) o[c] += h[c] * taps[1][2 + k], a[c] += h[c] * taps[1][k];
        } else {
          add_row<2>(o, w, taps[2 + k]);
          add_row<2>(a, w, taps[k]);
        }
      }
      store(i, o);
    }
  } else {
    // Output c takes pixels pair[c] and pair[c] + 1 of these: beside the window itself, it shifted by half a phase.
    const bool odd = p.ax.pad & 1;
    A before[6] = {};
    for (int i = 0; 2 * i < g.rows + 3; i++) {
      A w[kWindow];
      next_window(i, w);
      const A now[6] = {odd ? w[1] : w[0], odd ? w[2] : w[1], odd ? w[3] : w[2], w[1], w[2], w[3]};
      constexpr int pair[4] = {0, 3, 1, 4};
#pragma unroll
      for (int k = 1; k >= 0; k--) {
        A o[kOut];
        A upper[kTaps], lower[kTaps];
#pragma unroll
        for (int t = 0; t < kTaps; t++) upper[t] = fresh(taps[k][t]), lower[t] = fresh(taps[k + 2][t]);
#pragma unroll
        for (int c = 0; c < kOut; c++) {
          const int j = pair[c];
          o[c] = before[j] * upper[c % 2 * 2] + before[j + 1] * upper[c % 2 * 2 + 1] +
                 now[j] * lower[c % 2 * 2] + now[j + 1] * lower[c % 2 * 2 + 1];
        }
        store(2 * i - (v & 1 ? 1 : 2) - k, o);
      }
#pragma unroll
      for (int k = 0; k < 6; k++) before[k] = now[k];
    }
  }
}

// ----------------------------------------------------------------------------------------------------- NHWC, fast

constexpr int kChannels = 4;  // a thread's

struct Pixels {
  uint32_t threads, quads, strips;  // of all images; of a pixel's channels; of an image
  int32_t rows;
};

template <class T, int UP, int DOWN>
__global__ void __launch_bounds__(kThreads) upfirdn2d_pixels(const Fir<T> p, const Pixels g) {
  using A = acc_t<T>;
  using Taps = Pack<A, kTaps>;
  using Quad = Pack<T, kChannels>;
  ISG_SHARED(Taps, taps, [kTaps]);  // a column of taps each
  if (threadIdx.x < kTaps * kTaps) taps[threadIdx.x % kTaps].v[threadIdx.x / kTaps] = tap_at(p, threadIdx.x / kTaps, threadIdx.x % kTaps);
  __syncthreads();

  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= g.threads) return;
  const uint32_t pixel = i / g.quads, above = pixel / p.ax.out, image = above / g.strips;
  const int quad = static_cast<int>(i - pixel * g.quads) * kChannels, ox = static_cast<int>(pixel - above * p.ax.out);
  const int oy = static_cast<int>(above - image * g.strips) * g.rows, rows = min(g.rows, p.ay.out - oy);

  constexpr int kColumns = kTaps / UP;
  const int u = ox * DOWN - p.ax.pad, v = oy * DOWN - p.ay.pad;
  const int ix = UP == 2 ? (u + 1) >> 1 : u, phase = UP == 2 ? u & 1 : 0;
  int iy = UP == 2 ? (v + 1) >> 1 : v;
  unsigned inside = 0;
#pragma unroll
  for (int k = 0; k < kColumns; k++) inside |= unsigned(static_cast<unsigned>(ix + k) < static_cast<unsigned>(p.ax.in)) << k;
  const T* in = p.x + ((int64_t(image) * p.ay.in + iy) * p.ax.in + ix) * p.channels + quad;
  T* out = p.y + ((int64_t(image) * p.ay.out + oy) * p.ax.out + ox) * p.channels + quad;

  // Adds the next input row to rows under way: times tap[j] to sum[j].
  const auto add_pixels = [&](const int* tap, A (*const* sum)[kChannels], int n) {
    const unsigned now = static_cast<unsigned>(iy) < static_cast<unsigned>(p.ay.in) ? inside : 0;
#pragma unroll
    for (int k = 0; k < kColumns; k++) {
      if (now >> k & 1) {
        const Quad q = *reinterpret_cast<const Quad*>(in + int64_t(k) * p.channels);
        const Taps t = taps[phase + k * UP];
#pragma unroll
        for (int j = 0; j < n; j++)
#pragma unroll
          for (int c = 0; c < kChannels; c++) (*sum[j])[c] += to_acc(q.v[c]) * t.v[tap[j]];
      }
    }
    iy++;
    in += int64_t(p.ax.in) * p.channels;
  };
  const auto store = [&](int row, const A(&o)[kChannels]) {
    if (static_cast<unsigned>(row) >= static_cast<unsigned>(rows)) return;
    Quad q;
#pragma unroll
    for (int c = 0; c < kChannels; c++) q.v[c] = from_acc<T>(o[c]);
    *reinterpret_cast<Quad*>(out) = q;
    out += int64_t(p.ax.out) * p.channels;
  };

  if constexpr (UP == 1 && DOWN == 1) {
    A a[3][kChannels] = {};
    for (int r = 1 - kTaps; r < rows; r++) {
      A o[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; c++) o[c] = a[0][c], a[0][c] = a[1][c], a[1][c] = a[2][c], a[2][c] = A(0);
      const int tap[4] = {3, 2, 1, 0};
      A(*const sum[4])[kChannels] = {&o, &a[0], &a[1], &a[2]};
      add_pixels(tap, sum, 4);
      store(r, o);
    }
  } else if constexpr (DOWN == 2) {
    A a[kChannels] = {};
    for (int r = -1; r < rows; r++) {
      A o[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; c++) o[c] = a[c], a[c] = A(0);
      A(*const sum[2])[kChannels] = {&o, &a};
      const int upper[2] = {2, 0}, lower[2] = {3, 1};
      add_pixels(upper, sum, 2);
      add_pixels(lower, sum, 2);
      store(r, o);
    }
  } else {
    A a[2][kChannels] = {};
    for (int r = -2 - ((v & 1) ? 0 : 1); r < rows; r += 2) {
      A o[2][kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; c++) o[0][c] = a[0][c], o[1][c] = a[1][c], a[0][c] = a[1][c] = A(0);
      const int tap[4] = {3, 2, 1, 0};
      A(*const sum[4])[kChannels] = {&o[0], &o[1], &a[0], &a[1]};
      add_pixels(tap, sum, 4);
      store(r, o[0]);
      store(r + 1, o[1]);
    }
  }
}

// ------------------------------------------------------------------------------------- NCHW, long separable filters

// a / b for b > 0, rounded up.
__device__ __forceinline__ int ceil_of(int a, int b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// The pixels [from, from + count) under output o, and the tap (of those that matter) on the first of them.
struct Span {
  int from, count, tap;
  __device__ __forceinline__ Span(const Axis& a, int o) {
    const int u = o * a.down - a.pad;
    from = max(0, ceil_of(u, a.up));
    tap = from * a.up - u;
    count = max(0, min(a.in - from, (a.taps - tap + a.up - 1) / a.up));
  }
};

constexpr int kTileColumns = 32, kTileRows = 96, kLongest = 64;  // columns and input rows of a tile; taps

struct Tiles {
  uint32_t along_x, along_y;
  int32_t rows;  // output rows of a tile
};

// A block filters the rows under a tile of outputs along x, keeps that in shared memory, and filters it along y.
template <class T>
__global__ void __launch_bounds__(kThreads) upfirdn2d_separable(const Fir<T> p, const Tiles g) {
  using A = acc_t<T>;
  ISG_SHARED(A, taps_x, [kLongest]);
  ISG_SHARED(A, taps_y, [kLongest]);
  ISG_SHARED(A, filtered, [kTileRows][kTileColumns]);
  if (threadIdx.x < kLongest) {
    taps_x[threadIdx.x] = tap_along(p, p.ax, static_cast<int>(threadIdx.x));
    taps_y[threadIdx.x] = tap_along(p, p.ay, static_cast<int>(threadIdx.x)) * p.gain;
  }
  const uint32_t above = blockIdx.x / g.along_x, plane = above / g.along_y;
  const int column = threadIdx.x % kTileColumns, ox = static_cast<int>(blockIdx.x - above * g.along_x) * kTileColumns + column;
  const int oy = static_cast<int>(above - plane * g.along_y) * g.rows, rows = min(g.rows, p.ay.out - oy);
  const int v = oy * p.ay.down - p.ay.pad, top = ceil_of(v, p.ay.up);
  const int bottom = ceil_of(v + (rows - 1) * p.ay.down + p.ay.taps, p.ay.up);  // the row below the last
  __syncthreads();

  const Span span(p.ax, ox);
  for (int r = threadIdx.x / kTileColumns; r < bottom - top; r += kThreads / kTileColumns) {
    A sum = A(0);
    if (ox < p.ax.out && static_cast<unsigned>(top + r) < static_cast<unsigned>(p.ay.in)) {
      const T* x = p.x + (int64_t(plane) * p.ay.in + top + r) * p.ax.in + span.from;
      for (int k = 0; k < span.count; k++) sum += to_acc(x[k]) * taps_x[span.tap + k * p.ax.up];
    }
    filtered[r][column] = sum;
  }
  __syncthreads();

  for (int r = threadIdx.x / kTileColumns; r < rows; r += kThreads / kTileColumns) {
    const int u = v + r * p.ay.down, first = ceil_of(u, p.ay.up);
    A sum = A(0);
    for (int k = first * p.ay.up - u, i = first - top; k < p.ay.taps; k += p.ay.up, i++) sum += filtered[i][column] * taps_y[k];
    if (ox < p.ax.out) p.y[(int64_t(plane) * p.ay.out + oy + r) * p.ax.out + ox] = from_acc<T>(sum);
  }
}

// ------------------------------------------------------------------------------------------------------- anything

// a / b for b > 0; most indices fit 32 bits, where division takes a fraction of the time.
__device__ __forceinline__ int64_t divide(int64_t a, int32_t b) {
  return a >> 31 == 0 ? int64_t(static_cast<uint32_t>(a) / static_cast<uint32_t>(b)) : a / b;
}

// One thread an output.
template <class T>
__global__ void __launch_bounds__(kThreads) upfirdn2d_any(const Fir<T> p, bool channels_last) {
  using A = acc_t<T>;
  const int32_t c_in = channels_last ? p.channels : 1;
  const int64_t n = p.images * p.ay.out * p.ax.out * c_in, step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += step) {
    const int64_t pixel = channels_last ? divide(i, c_in) : i, above = divide(pixel, p.ax.out), image = divide(above, p.ay.out);
    const int c = static_cast<int>(i - pixel * c_in);
    const Span sx(p.ax, static_cast<int>(pixel - above * p.ax.out)), sy(p.ay, static_cast<int>(above - image * p.ay.out));
    A sum = A(0);
    for (int y = 0; y < sy.count; y++) {
      const T* row = p.x + ((image * p.ay.in + sy.from + y) * p.ax.in + sx.from) * c_in + c;
      const int ky = sy.tap + y * p.ay.up;
      if (p.separable) {
        A along = A(0);
        for (int x = 0; x < sx.count; x++) along += to_acc(row[int64_t(x) * c_in]) * tap_along(p, p.ax, sx.tap + x * p.ax.up);
        sum += along * tap_along(p, p.ay, ky) * p.gain;
      } else {
        for (int x = 0; x < sx.count; x++) sum += to_acc(row[int64_t(x) * c_in]) * tap_at(p, ky, sx.tap + x * p.ax.up);
      }
    }
    p.y[i] = from_acc<T>(sum);
  }
}

// ----------------------------------------------------------------------------------------------------------- host

// Pixels, outputs or threads of one image, whichever are most.
template <class T>
int64_t extent(const Fir<T>& p, int64_t threads) {
  const int64_t in = int64_t(p.ax.in) * p.ay.in, out = int64_t(p.ax.out) * p.ay.out;
  return std::max(std::max(in, out) * p.channels, threads);
}

// launch_some(p) for portions of the images that have at most kMaxElements pixels, outputs and threads.
template <class T, class F>
int32_t in_portions(Fir<T> p, int64_t threads_an_image, F launch_some) {
  const int64_t most = std::max<int64_t>(1, kMaxElements / extent(p, threads_an_image));
  const int64_t planes = int64_t(p.channels);
  for (int64_t left = p.images; left > 0; left -= most) {
    p.images = std::min(left, most);
    if (const int32_t rc = launch_some(p)) return rc;
    p.x += p.images * p.ay.in * p.ax.in * planes;
    p.y += p.images * p.ay.out * p.ax.out * planes;
  }
  return kOk;
}

// Long strips read fewer rows twice; short ones give more threads.
int32_t strip_rows(int64_t threads, int32_t out) {
  int64_t rows = 64;
  while (rows > 8 && threads * ceil_div(out, rows) < ISG_FEW_THREADS) rows /= 2;
  return static_cast<int32_t>(ceil_div(out, ceil_div(out, rows)));
}

template <class T, int UP, int DOWN, int LEFT>
int32_t launch_planes(const Fir<T>& p, const Strips& g, void* stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(int64_t(g.units) << g.lanes, kThreads)) * g.strips);
  // Up 2 meets 2 x 2 taps an output: two passes would save nothing.
  if constexpr (LEFT != kAnyLeft && UP == 1)
    if (p.separable) return launch(upfirdn2d_planes<T, UP, DOWN, true, LEFT>, grid, dim3(kThreads), stream, p, g);
  return launch(upfirdn2d_planes<T, UP, DOWN, false, LEFT>, grid, dim3(kThreads), stream, p, g);
}

template <class T, int UP, int DOWN>
int32_t run_planes(Fir<T> p, void* stream) {
  using Tl = Tile<UP, DOWN>;
  Strips g{};
  const int64_t columns = ceil_div(p.ax.out, Tl::kOut);
  g.lanes = 1;  // no lane is both the first and the last
  while (g.lanes < 5 && (1 << g.lanes) < columns) g.lanes++;
  g.segments = static_cast<uint32_t>(ceil_div(columns, 1 << g.lanes));
  const int64_t across = int64_t(g.segments) << g.lanes;
  g.rows = strip_rows(across * p.images, p.ay.out);
  g.strips = static_cast<uint32_t>(ceil_div(p.ay.out, g.rows));
  const auto set_left = [&] {
    const int32_t before = UP == 2 ? (p.ax.pad + 1) >> 1 : p.ax.pad;  // pixels from the first output's first to pixel 0
    g.left = before & (Tl::kOwn - 1);
    g.column = g.left - before;
  };
  // 4 taps leave 2 or 1 pixels to the left with the paddings that keep an image in place, and their gradients. Fewer
  // taps may be moved there among the 4.
  const auto known = [&] { return g.left == 1 || (g.left == 2 && UP == 1 && DOWN == 1); };
  for (set_left(); !known() && p.ax.taps < kTaps && p.ax.first_tap < kTaps - p.ax.taps; set_left()) p.ax.first_tap++, p.ax.pad++;
  return in_portions(p, across * g.strips, [&](const Fir<T>& q) {
    g.units = static_cast<uint32_t>(q.images * g.segments);
    g.packed_in = q.ax.in % Tl::kOwn == 0 && aligned<T, Tl::kOwn>(q.x);
    g.packed_out = q.ax.out % Tl::kOut == 0 && aligned<T, Tl::kOut>(q.y);
    if (g.packed_in && g.packed_out) {
      if (g.left == 1) return launch_planes<T, UP, DOWN, 1>(q, g, stream);
      if constexpr (UP == 1 && DOWN == 1)
        if (g.left == 2) return launch_planes<T, UP, DOWN, 2>(q, g, stream);
    }
    return launch_planes<T, UP, DOWN, kAnyLeft>(q, g, stream);
  });
}

template <class T, int UP, int DOWN>
int32_t run_pixels(const Fir<T>& p, void* stream) {
  Pixels g{};
  g.quads = static_cast<uint32_t>(p.channels / kChannels);
  const int64_t across = int64_t(p.ax.out) * g.quads;
  g.rows = strip_rows(across * p.images, p.ay.out);
  g.strips = static_cast<uint32_t>(ceil_div(p.ay.out, g.rows));
  return in_portions(p, across * g.strips, [&](const Fir<T>& q) {
    g.threads = static_cast<uint32_t>(q.images * g.strips * across);
    return launch(upfirdn2d_pixels<T, UP, DOWN>, dim3(static_cast<unsigned>(ceil_div(g.threads, kThreads))), dim3(kThreads), stream, q, g);
  });
}

// Output rows of a tile, below 1 if no tile is tall enough for one.
int64_t tile_rows(const Axis& y) {
  return std::min<int64_t>(kTileColumns, ((kTileRows - 1) * int64_t(y.up) - y.taps) / y.down + 1);
}

template <class T>
int32_t run_separable(const Fir<T>& p, void* stream) {
  const int32_t rows = static_cast<int32_t>(tile_rows(p.ay));
  const Tiles g{static_cast<uint32_t>(ceil_div(p.ax.out, kTileColumns)), static_cast<uint32_t>(ceil_div(p.ay.out, rows)), rows};
  const int64_t blocks = int64_t(g.along_x) * g.along_y;
  return in_portions(p, blocks * kThreads, [&](const Fir<T>& q) {
    return launch(upfirdn2d_separable<T>, dim3(static_cast<unsigned>(q.images * blocks)), dim3(kThreads), stream, q, g);
  });
}

template <class T>
int32_t run(const Upfirdn2d& op, void* stream) {
  const bool last = op.channels_last && op.channels > 1;
  const Fir<T> p{static_cast<const T*>(op.x),
                 op.f,
                 static_cast<T*>(op.y),
                 last ? op.n : op.n * op.channels,
                 last ? static_cast<int32_t>(op.channels) : 1,
                 Axis(op.ax),
                 Axis(op.ay),
                 op.separable,
                 op.flip,
                 static_cast<acc_t<T>>(op.gain)};
  const int up = p.ax.up, down = p.ax.down, longest = std::max(p.ax.taps, p.ay.taps);
  const bool quads = !last || (p.channels % kChannels == 0 && aligned<T, kChannels>(p.x) && aligned<T, kChannels>(p.y));
  // One tap is no filter: filling it up with zeros would only spread infinities. An image with more than 32 bits'
  // worth of pixels is a case for the other kernel as well.
  if (p.ay.up == up && p.ay.down == down && longest <= kTaps && longest > 1 && quads && extent(p, 0) <= int64_t(1) << 29) {
    if (up == 1 && down == 1) return last ? run_pixels<T, 1, 1>(p, stream) : run_planes<T, 1, 1>(p, stream);
    if (up == 2 && down == 1) return last ? run_pixels<T, 2, 1>(p, stream) : run_planes<T, 2, 1>(p, stream);
    if (up == 1 && down == 2) return last ? run_pixels<T, 1, 2>(p, stream) : run_planes<T, 1, 2>(p, stream);
  }
  // Two passes take less than one from three taps a pixel on.
  const bool pays = p.ax.taps > 2 * p.ax.up && p.ay.taps > 2 * p.ay.up;
  if (p.separable && !last && pays && longest <= kLongest && tile_rows(p.ay) >= 1 && extent(p, 0) <= int64_t(1) << 29)
    return run_separable(p, stream);
  const int64_t n = p.images * p.ax.out * p.ay.out * p.channels;
  const int64_t blocks = std::min<int64_t>(ceil_div(n, kThreads), ISG_MAX_BLOCKS);
  return launch(upfirdn2d_any<T>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), stream, p, last);
}

bool bad(const UpfirdnAxis& a) {
  if (a.in < 1 || a.out < 1 || a.taps < 1 || a.up < 1 || a.down < 1) return true;
  // Places in the upsampled image are 32-bit numbers.
  constexpr int64_t kMost = int64_t(1) << 30;
  const int64_t in = int64_t(a.in) * a.up, out = int64_t(a.out) * a.down;
  return in > kMost || out > kMost || a.taps > kMost || a.pad > kMost || a.pad < -kMost;
}

}  // namespace

namespace cuda {

int32_t upfirdn2d(const Upfirdn2d& p, DType t, void* stream) {
  if (p.n < 0 || p.channels < 0 || p.channels > INT32_MAX || bad(p.ax) || bad(p.ay)) return kBadShape;
  if (p.separable && p.ax.taps != p.ay.taps) return kBadShape;
  if (p.n == 0 || p.channels == 0) return kOk;  // no blocks to launch
  switch (t) {
    case DType::f32: return run<float>(p, stream);
    case DType::f16: return run<__half>(p, stream);
    case DType::bf16: return run<__nv_bfloat16>(p, stream);
    case DType::f64: return run<double>(p, stream);
    default: return kUnsupportedDType;
  }
}

}  // namespace cuda
}  // namespace isg
