// What the kernels look like from outside: plain structs in, a status out. No torch, no CUDA here: this file is
// shared by the torch bindings, the CPU kernels, the CUDA kernels (nvcc) and the tests that run those on the CPU.
#pragma once
#include <cstdint>

namespace isg {

enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, f64 = 3 };
enum class Act : int32_t { linear = 0, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };
enum Status : int32_t { kOk = 0, kUnsupportedDType = -1, kBadShape = -2 };  // > 0: a cudaError_t

// acc(T): the type to compute in, and of biases, bias gradients and filters' products: float, or double for f64.

// Every tensor of a call has the same dense memory order [outer, channels, inner]: element i belongs to channel
// (i / inner) % channels. NCHW: inner = H * W. Channels-last and [N, C]: inner = 1. No bias: channels = inner = 1.
struct BiasActShape {
  int64_t outer, channels, inner;
};

struct BiasActMath {
  Act act;
  double alpha, gain;
  double clamp;  // < 0: none
};

// y = clamp(gain * act(x + b)); NaN passes.
struct BiasActForward {
  const void* x;  // T
  const void* b;  // acc(T) [channels], or null
  void* y;        // T
  BiasActShape shape;
  BiasActMath math;
};

// dx = (dy + db_in) * d(y)/d(x + b), and db[c] = sum of the unrounded dx over channel c.
// The derivative at a point is told by x (with b), or, for linear, relu and lrelu without clamp and with gain > 0,
// by y: y > 0 is the side of slope 1. At |gain * act| == clamp it is that of the inside; NaN gives NaN.
struct BiasActBackward {
  const void* dy;     // T
  const void* dy_b;   // acc(T) [channels] added to dy along its channels, or null (used by double backward)
  const void* ref;    // T: x, or y if ref_is_output; null for linear without clamp
  const void* b;      // acc(T) [channels] or null: added to ref if that is x
  void* dx;           // T
  void* db;           // acc(T) [channels], or null
  void* workspace;    // bias_act_workspace() bytes, or null if that is 0
  bool ref_is_output;
  BiasActShape shape;
  BiasActMath math;
};

// For smooth acts. With t = ddx + ddb (the gradients that arrive for dx and db):
// d_dy = t * y'(x + b), d_x = t * dy * y''(x + b), d_b[c] = sum of the unrounded d_x over channel c.
struct BiasActDoubleBackward {
  const void* ddx;    // T, or null for zeros
  const void* ddb;    // acc(T) [channels], or null
  const void* dy;     // T
  const void* x;      // T
  const void* b;      // acc(T) [channels] or null
  void* d_dy;         // T
  void* d_x;          // T
  void* d_b;          // acc(T) [channels], or null
  void* workspace;
  BiasActShape shape;
  BiasActMath math;
};

struct UpfirdnAxis {
  int32_t in, out, taps, up, down, pad;  // pad: before the first pixel of the upsampled image; negative crops
};

// y = upfirdn2d(x). NCHW, or NHWC if channels_last; both dense.
struct Upfirdn2d {
  const void* x;   // T
  const float* f;  // [y.taps, x.taps]; or [taps] along both axes if separable (then x.taps == y.taps)
  void* y;         // T
  int64_t n, channels;
  UpfirdnAxis ax, ay;
  bool channels_last, separable;
  bool flip;       // false: convolution (taps reversed as they slide), true: correlation
  double gain;
};

// `stream` is a cudaStream_t for the CUDA back end, unused by the CPU one.
#define ISG_DECLARE_OPS                                                             \
  int64_t bias_act_workspace(const BiasActShape&, DType); /* bytes for db / d_b */  \
  int32_t bias_act_forward(const BiasActForward&, DType, void* stream);             \
  int32_t bias_act_backward(const BiasActBackward&, DType, void* stream);           \
  int32_t bias_act_double_backward(const BiasActDoubleBackward&, DType, void* stream); \
  int32_t upfirdn2d(const Upfirdn2d&, DType, void* stream);

namespace cuda {
ISG_DECLARE_OPS
}
namespace cpu {
ISG_DECLARE_OPS
}
#undef ISG_DECLARE_OPS

}  // namespace isg
