// Checks the CUDA kernels against their definitions in double precision, on tensors that lie exactly in their memory.
// Linked with the emulated kernels or with translated PTX. Arguments: the types to check, of f32 f16 bf16 f64; "small"
// leaves out what takes long under a sanitizer.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "ops.h"

using namespace isg;

static int passed = 0, failed = 0;
static bool small = false;
static std::mt19937 random_bits(1);

struct Bf16 {
  uint16_t bits;
  Bf16() = default;
  explicit Bf16(float f) {
    uint32_t u;
    std::memcpy(&u, &f, 4);
    bits = static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  explicit operator double() const {
    const uint32_t u = uint32_t(bits) << 16;
    float f;
    std::memcpy(&f, &u, 4);
    return f;
  }
};

template <class T>
struct Type;
template <>
struct Type<float> {
  static constexpr DType id = DType::f32;
  static constexpr double tolerance = 2e-5;
  using Acc = float;
};
template <>
struct Type<double> {
  static constexpr DType id = DType::f64;
  static constexpr double tolerance = 1e-6;  // filters are float
  using Acc = double;
};
template <>
struct Type<_Float16> {
  static constexpr DType id = DType::f16;
  static constexpr double tolerance = 2e-3;
  using Acc = float;
};
template <>
struct Type<Bf16> {
  static constexpr DType id = DType::bf16;
  static constexpr double tolerance = 1.5e-2;
  using Acc = float;
};

// Exactly n elements on the heap, `offset` elements after an address as malloc gives; NaN until written.
template <class T>
struct Buffer {
  T *base, *p;
  size_t n;
  explicit Buffer(size_t n_, size_t offset = 0)
      : base(static_cast<T*>(std::malloc((n_ + offset) * sizeof(T) + (n_ + offset == 0)))), p(base + offset), n(n_) {
    std::memset(static_cast<void*>(base), 0xFF, (n + offset) * sizeof(T));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(base); }
  Buffer& randomize() {
    std::normal_distribution<float> d;
    for (size_t i = 0; i < n; i++) p[i] = T(d(random_bits) * 2);
    return *this;
  }
  double operator[](size_t i) const { return double(p[i]); }
};

struct Check {
  double worst = 0, scale = 1;
  void operator()(double got, double wanted) {
    const double error = std::abs(got - wanted);
    scale = std::max(scale, std::abs(wanted));
    worst = std::max(worst, error == error ? error : 1e30);
  }
  void report(const char* what, int status, double tolerance) const {
    const bool ok = status == 0 && worst <= tolerance * scale;
    (ok ? passed : failed)++;
    if (!ok) std::printf("FAIL %s: status %d, error %g of %g\n", what, status, worst, scale);
  }
};

// --------------------------------------------------------------------------------------------------------- bias_act

static double act_value(Act act, double v, double alpha) {
  const double s = 1 / (1 + std::exp(-v));
  switch (act) {
    case Act::linear: return v;
    case Act::relu: return v > 0 ? v : 0;
    case Act::lrelu: return v > 0 ? v : v * alpha;
    case Act::tanh: return std::tanh(v);
    case Act::sigmoid: return s;
    case Act::elu: return v > 0 ? v : std::expm1(v);
    case Act::selu: return 1.0507009873554805 * (v > 0 ? v : 1.6732632423543772 * std::expm1(v));
    case Act::softplus: return std::log1p(std::exp(v));
    default: return v * s;
  }
}

// Derivatives by central differences of the definition itself; away from kinks, where `v` never lies by chance.
static double act_first(Act act, double v, double alpha) {
  const double h = 1e-5;
  return (act_value(act, v + h, alpha) - act_value(act, v - h, alpha)) / (2 * h);
}
static double act_second(Act act, double v, double alpha) {
  const double h = 1e-4;
  return (act_value(act, v + h, alpha) - 2 * act_value(act, v, alpha) + act_value(act, v - h, alpha)) / (h * h);
}

template <class T>
void test_bias_act(BiasActShape s, Act act, double clamp, size_t offset, bool with_bias = true) {
  using A = typename Type<T>::Acc;
  const size_t n = static_cast<size_t>(s.outer * s.channels * s.inner), c = static_cast<size_t>(s.channels);
  const bool smooth = act > Act::lrelu;
  Buffer<T> x(n, offset), y(n, offset), dy(n, offset), dx(n, offset), ddx(n, offset), d_dy(n, offset), d_x(n, offset);
  Buffer<A> b(c), dyb(c), ddb(c), db(c), d_b(c);
  x.randomize(), dy.randomize(), ddx.randomize(), b.randomize(), dyb.randomize(), ddb.randomize();
  const BiasActMath math{act, 0.2, 1.3, clamp};
  // Away from kinks by more than rounding, so that every back end sees the same side.
  const auto at = [&](size_t i) { return x[i] + (with_bias ? b[i / s.inner % c] : 0); };
  for (size_t i = 0; i < n; i++) {
    const double v = at(i), v_y = act_value(act, v, 0.2) * 1.3;
    if (std::abs(v) < 0.03 || (clamp >= 0 && std::abs(std::abs(v_y) - clamp) < 0.03)) x.p[i] = T(static_cast<float>(x[i] + 0.125));
    if (clamp >= 0 && std::abs(std::abs(act_value(act, at(i), 0.2) * 1.3) - clamp) < 0.01) x.p[i] = T(static_cast<float>(x[i] + 0.25));
  }
  const A* bias = with_bias ? b.p : nullptr;
  char name[128];
  std::snprintf(name, sizeof name, "type %d [%ld,%ld,%ld]+%zu act %d clamp %g", int(Type<T>::id), long(s.outer),
                long(s.channels), long(s.inner), offset, int(act), clamp);
  char what[160];
  const double tolerance = Type<T>::tolerance;

  int status = cuda::bias_act_forward({x.p, bias, y.p, s, math}, Type<T>::id, nullptr);
  Check forward;
  for (size_t i = 0; i < n; i++) {
    double v = act_value(act, at(i), 0.2) * 1.3;
    if (clamp >= 0) v = std::min(std::max(v, -clamp), clamp);
    forward(y[i], v);
  }
  std::snprintf(what, sizeof what, "bias_act %s", name);
  forward.report(what, status, tolerance);

  const auto inside = [&](size_t i) { return clamp < 0 || std::abs(act_value(act, at(i), 0.2) * 1.3) <= clamp; };
  const int64_t bytes = cuda::bias_act_workspace(s, Type<T>::id);
  Buffer<char> workspace(static_cast<size_t>(bytes));
  for (const bool by_output : {false, true}) {
    if (by_output && (smooth || clamp >= 0)) continue;
    status = cuda::bias_act_backward({dy.p, dyb.p, by_output ? y.p : x.p, bias, dx.p, db.p, bytes ? workspace.p : nullptr,
                                      by_output, s, math},
                                     Type<T>::id, nullptr);
    Check check, sums;
    std::vector<double> sum(c), size(c);
    for (size_t i = 0; i < n; i++) {
      const size_t k = i / s.inner % c;
      const double d = inside(i) ? (dy[i] + dyb[k]) * act_first(act, at(i), 0.2) * 1.3 : 0;
      check(dx[i], d);
      sum[k] += d;
      size[k] += std::abs(d);
    }
    for (size_t k = 0; k < c; k++) sums(db[k] / (1 + size[k]), sum[k] / (1 + size[k]));
    std::snprintf(what, sizeof what, "bias_act backward%s %s", by_output ? " by output" : "", name);
    check.report(what, status, std::max(tolerance, 1e-4));
    std::snprintf(what, sizeof what, "bias_act db%s %s", by_output ? " by output" : "", name);
    sums.report(what, status, std::max(tolerance / 10, 2e-5));
  }
  if (!smooth) return;

  status = cuda::bias_act_double_backward({ddx.p, ddb.p, dy.p, x.p, bias, d_dy.p, d_x.p, d_b.p, bytes ? workspace.p : nullptr, s, math},
                                          Type<T>::id, nullptr);
  Check check_dy, check_x, sums;
  std::vector<double> sum(c), size(c);
  for (size_t i = 0; i < n; i++) {
    const size_t k = i / s.inner % c;
    const double t = ddx[i] + ddb[k], in = inside(i);
    const double d = in * t * dy[i] * act_second(act, at(i), 0.2) * 1.3;
    check_dy(d_dy[i], in * t * act_first(act, at(i), 0.2) * 1.3);
    check_x(d_x[i], d);
    sum[k] += d;
    size[k] += std::abs(d);
  }
  for (size_t k = 0; k < c; k++) sums(d_b[k] / (1 + size[k]), sum[k] / (1 + size[k]));
  std::snprintf(what, sizeof what, "bias_act double backward %s", name);
  check_dy.report(what, status, std::max(tolerance, 1e-4));
  check_x.report(what, status, std::max(tolerance, 1e-4));
  sums.report(what, status, std::max(tolerance / 10, 2e-5));
}

// What no random number hits: NaN, infinities, and the edges of the clamp.
static void test_special_values() {
  const float nan = NAN, inf = INFINITY, big = 3.4e38f;
  Buffer<float> x(8), y(8), dy(8), dx(8), b(1), db(1);
  const float values[8] = {nan, inf, -inf, 0, 2, -2, big, -0.0f};
  std::memcpy(x.p, values, sizeof values);
  for (int i = 0; i < 8; i++) dy.p[i] = 1;
  b.p[0] = 0;
  for (int a = 0; a < 9; a++) {
    const BiasActMath math{static_cast<Act>(a), 0.2, 1, 2};
    Check c;
    int status = cuda::bias_act_forward({x.p, b.p, y.p, {1, 1, 8}, math}, DType::f32, nullptr);
    c(std::isnan(y[0]), 1);
    // -inf times sigmoid(-inf) is NaN, as in torch.
    if (static_cast<Act>(a) != Act::swish)
      for (int i = 1; i < 8; i++) c(std::isnan(y[i]), 0), c(std::abs(y[i]) <= 2, 1);
    status |= cuda::bias_act_backward({dy.p, nullptr, x.p, b.p, dx.p, nullptr, nullptr, false, {1, 1, 8}, math}, DType::f32, nullptr);
    c(std::isnan(dx[0]), 1);
    if (static_cast<Act>(a) == Act::linear) c(dx[4], 1), c(dx[5], 1), c(dx[1], 0), c(dx[2], 0);  // the edge is inside
    char what[64];
    std::snprintf(what, sizeof what, "special values act %d", a);
    c.report(what, status, 0);
  }
  // An infinite gradient times a slope of 0 is NaN.
  for (int i = 0; i < 8; i++) dy.p[i] = inf, x.p[i] = i - 3.5f;
  const int status = cuda::bias_act_backward({dy.p, nullptr, x.p, b.p, dx.p, nullptr, nullptr, false, {1, 1, 8}, {Act::relu, 0, 1, -1}}, DType::f32, nullptr);
  Check c;
  for (int i = 0; i < 8; i++) c(std::isinf(dx[i]), i > 3), c(std::isnan(dx[i]), i <= 3);
  c.report("infinite gradients", status, 0);
}

static void test_refusals() {
  Buffer<float> x(8), y(8), b(4);
  x.randomize(), b.randomize();
  const BiasActMath math{Act::lrelu, 0.2, 1, -1};
  Check c;
  c(cuda::bias_act_forward({x.p, b.p, y.p, {-1, 4, 2}, math}, DType::f32, nullptr), kBadShape);
  c(cuda::bias_act_forward({x.p, b.p, y.p, {int64_t(1) << 40, 4, int64_t(1) << 40}, math}, DType::f32, nullptr), kBadShape);
  c(cuda::bias_act_forward({x.p, b.p, y.p, {1, 4, 2}, math}, static_cast<DType>(9), nullptr), kUnsupportedDType);
  c(cuda::bias_act_forward({nullptr, b.p, nullptr, {0, 4, 2}, math}, DType::f32, nullptr), kOk);
  c(cuda::bias_act_backward({x.p, nullptr, x.p, nullptr, y.p, nullptr, nullptr, true, {1, 4, 2}, {Act::tanh, 0, 1, -1}}, DType::f32, nullptr), kBadShape);
  c(cuda::bias_act_backward({x.p, nullptr, nullptr, nullptr, y.p, nullptr, nullptr, false, {1, 4, 2}, math}, DType::f32, nullptr), kBadShape);
  // The sums over no elements are 0.
  c(cuda::bias_act_backward({nullptr, nullptr, nullptr, nullptr, nullptr, b.p, nullptr, false, {0, 4, 2}, math}, DType::f32, nullptr), kOk);
  for (int i = 0; i < 4; i++) c(b[i], 0);
  const UpfirdnAxis axis{4, 4, 1, 1, 1, 0};
  UpfirdnAxis none = axis;
  none.out = 0;
  c(cuda::upfirdn2d({x.p, b.p, y.p, 1, 1, axis, none, false, false, false, 1}, DType::f32, nullptr), kBadShape);
  c(cuda::upfirdn2d({nullptr, b.p, nullptr, 0, 1, axis, axis, false, false, false, 1}, DType::f32, nullptr), kOk);
  c.report("refusals", 0, 0);
}

// --------------------------------------------------------------------------------------------------------- upfirdn2d

struct Resample {
  int up, down, pad0, pad1, taps;
};

template <class T>
void test_upfirdn2d(int n, int channels, int h, int w, Resample rx, Resample ry, bool last, bool separable, bool flip, size_t offset = 0) {
  const auto axis = [](int in, Resample r) {
    return UpfirdnAxis{in, (in * r.up + r.pad0 + r.pad1 - r.taps) / r.down + 1, r.taps, r.up, r.down, r.pad0};
  };
  const UpfirdnAxis ax = axis(w, rx), ay = axis(h, ry);
  Buffer<T> x(size_t(n) * channels * h * w, offset), y(size_t(n) * channels * ax.out * ay.out, offset);
  Buffer<float> f(separable ? size_t(rx.taps) : size_t(rx.taps) * ry.taps);
  x.randomize(), f.randomize();
  const int status = cuda::upfirdn2d({x.p, f.p, y.p, n, channels, ax, ay, last, separable, flip, 0.5}, Type<T>::id, nullptr);
  const auto index = [&](int i, int c, int row, int column, int rows, int columns) {
    return last ? ((size_t(i) * rows + row) * columns + column) * channels + c : ((size_t(i) * channels + c) * rows + row) * columns + column;
  };
  Check check;
  for (int i = 0; i < n; i++)
    for (int c = 0; c < channels; c++)
      for (int oy = 0; oy < ay.out; oy++)
        for (int ox = 0; ox < ax.out; ox++) {
          double sum = 0;
          for (int ky = 0; ky < ry.taps; ky++)
            for (int kx = 0; kx < rx.taps; kx++) {
              const int uy = oy * ry.down + ky - ry.pad0, ux = ox * rx.down + kx - rx.pad0;
              if (uy < 0 || ux < 0 || uy % ry.up || ux % rx.up || uy / ry.up >= h || ux / rx.up >= w) continue;
              const int ty = flip ? ky : ry.taps - 1 - ky, tx = flip ? kx : rx.taps - 1 - kx;
              const double tap = separable ? f[ty] * f[tx] : f[size_t(ty) * rx.taps + tx];
              sum += x[index(i, c, uy / ry.up, ux / rx.up, h, w)] * tap;
            }
          check(y[index(i, c, oy, ox, ay.out, ax.out)], sum * 0.5);
        }
  char what[200];
  std::snprintf(what, sizeof what, "upfirdn2d type %d [%d,%d,%d,%d]+%zu up %d,%d down %d,%d pad %d,%d %d,%d taps %dx%d last %d separable %d flip %d",
                int(Type<T>::id), n, channels, h, w, offset, rx.up, ry.up, rx.down, ry.down, rx.pad0, rx.pad1, ry.pad0, ry.pad1, ry.taps,
                rx.taps, last, separable, flip);
  check.report(what, status, Type<T>::tolerance);
}

// -------------------------------------------------------------------------------------------------------------- cases

template <class T>
void all() {
  for (int act = 0; act < 9; act++)
    for (const double clamp : {-1.0, 0.7}) {
      const Act a = static_cast<Act>(act);
      if (small && act != 2 && act != 8) continue;
      test_bias_act<T>({3, 5, 16}, a, clamp, 0);   // packs
      test_bias_act<T>({2, 3, 21}, a, clamp, 0);   // a plane that packs don't fit
      test_bias_act<T>({2, 3, 16}, a, clamp, 1);   // a start that isn't aligned
      test_bias_act<T>({37, 24, 1}, a, clamp, 0);  // channels-last
      test_bias_act<T>({29, 3, 1}, a, clamp, 0);
    }
  test_bias_act<T>({9, 2, 300}, Act::lrelu, -1, 0);  // several pieces, several shares
  test_bias_act<T>({2, 2, 2600}, Act::swish, -1, 0);
  test_bias_act<T>({1, 1, 5003}, Act::lrelu, -1, 0, false);
  test_bias_act<T>({1, 1, 5003}, Act::tanh, 0.5, 3, false);
  test_bias_act<T>({700, 8, 1}, Act::lrelu, 0.7, 0);
  test_bias_act<T>({1, 4200, 1}, Act::lrelu, -1, 0);

  const auto both = [](int n, int c, int h, int w, Resample r, bool last, bool separable, bool flip, size_t offset = 0) {
    test_upfirdn2d<T>(n, c, h, w, r, r, last, separable, flip, offset);
  };
  // Up 2, down 2 and neither: widths of a part of a warp, of several warps, of no multiple of a pack; four taps, and
  // fewer; each padding modulo a pack, cropping too; both kinds of filter; both memory orders.
  const Resample blur[] = {{1, 1, 2, 1, 4}, {1, 1, 1, 2, 4}, {1, 1, 0, 3, 4}, {1, 1, 3, 0, 4}, {1, 1, 1, 1, 3}, {1, 1, -1, 4, 4}, {1, 1, 0, 1, 2}};
  const Resample up[] = {{2, 1, 2, 1, 4}, {2, 1, 1, 2, 4}, {2, 1, 0, 3, 4}, {2, 1, 3, 2, 4}, {2, 1, 2, 0, 3}, {2, 1, -1, 4, 4}, {2, 1, 1, 0, 2}};
  const Resample down[] = {{1, 2, 1, 1, 4}, {1, 2, 2, 2, 4}, {1, 2, 0, 2, 4}, {1, 2, 3, 1, 4}, {1, 2, 1, 0, 3}, {1, 2, -2, 4, 4}, {1, 2, 0, 0, 2}};
  for (int i = 0; i < 7; i++)
    for (const Resample& r : {blur[i], up[i], down[i]}) {
      const bool separable = i % 2, flip = i % 3 == 1;
      both(2, 3, 16, 16, r, false, separable, flip);
      if (small && i > 1) continue;
      both(1, 2, 13, 17, r, false, !separable, flip);
      both(1, 2, 12, 16, r, false, separable, flip, 1);
      both(2, 4, 9, 12, r, true, separable, flip);
      if (small) continue;
      both(1, 2, 20, 144, r, false, separable, !flip);
      both(1, 3, 9, 12, r, true, separable, flip);  // channels that packs don't fit
    }
  both(1, 2, 20, 272, blur[0], false, true, false);   // more than a warp's width, more than a strip's rows
  both(1, 2, 40, 16, down[0], false, false, false);
  both(3, 3, 4, 4, up[0], false, false, false);
  both(1, 2, 9, 7, {2, 2, 2, 1, 4}, false, false, false);   // a common divisor
  both(1, 2, 9, 8, {4, 2, 3, 2, 4}, false, false, true);
  both(1, 4, 9, 8, {2, 4, 3, 2, 6}, true, false, false);
  both(1, 2, 9, 7, {3, 2, 4, 1, 5}, false, false, false);   // anything
  both(1, 3, 9, 7, {1, 1, 6, 5, 12}, true, true, false);
  both(1, 2, 7, 9, {2, 1, 7, 6, 12}, false, true, true);
  both(1, 1, 5, 5, {1, 1, -1, -1, 1}, false, false, false);
  both(1, 1, 3, 3, {5, 5, 1, 9, 1}, false, false, false);   // taps that never meet a pixel
  both(1, 2, 20, 35, {1, 1, 6, 5, 12}, false, true, false);  // long separable filters, in tiles
  if (small) return;
  both(1, 1, 90, 136, blur[1], false, false, true);
  both(2, 1, 37, 9, {2, 1, 6, 6, 12}, false, true, true);
  both(1, 2, 70, 40, {1, 2, 5, 5, 12}, false, true, false);
  both(1, 1, 13, 11, {3, 2, 9, 20, 33}, false, true, false);
  both(1, 2, 30, 8, {1, 5, -2, 40, 20}, false, true, true);
  both(1, 1, 9, 8, {1, 1, 60, 60, 64}, false, true, false);
  both(1, 1, 9, 8, {1, 1, 60, 60, 65}, false, true, false);  // too long for tiles
  test_upfirdn2d<T>(1, 2, 11, 9, {2, 1, 2, 1, 4}, {1, 2, 1, 1, 3}, false, false, false);
  test_upfirdn2d<T>(1, 2, 11, 12, {1, 1, 1, 2, 4}, {1, 1, -3, 1, 2}, false, false, true);
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; i++) small = small || !std::strcmp(argv[i], "small");
  for (int i = 1; i < argc; i++) {
    if (!std::strcmp(argv[i], "f32")) all<float>(), test_special_values(), test_refusals();
    if (!std::strcmp(argv[i], "f64")) all<double>();
    if (!std::strcmp(argv[i], "f16")) all<_Float16>();
    if (!std::strcmp(argv[i], "bf16")) all<Bf16>();
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0 || passed == 0;
}
