// Torch side of a back end: checks tensors, fills the plain structs, picks device and stream. No kernel code here;
// a host compiler builds it. The operators themselves are defined in library.py; this registers kernels for them.
//   ISG_NAMESPACE  the torch namespace of the operators
//   ISG_BACKEND    cpu or cuda: whose kernels of ops.h
//   ISG_EMULATED   set: CUDA kernels that run on the CPU, registered for CPU tensors (for tests)
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "ops.h"

#define ISG_IS_cuda 1
#define ISG_CONCAT_(a, b) a##b
#define ISG_CONCAT(a, b) ISG_CONCAT_(a, b)
#if ISG_CONCAT(ISG_IS_, ISG_BACKEND) == 1 && !defined(ISG_EMULATED)
#define ISG_ON_GPU 1
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>  // not ATen/cuda/CUDAContext.h, which needs headers of more CUDA libraries
#endif

namespace {

namespace kernels = isg::ISG_BACKEND;
using at::Tensor;
using OptTensor = std::optional<Tensor>;

#ifdef ISG_ON_GPU
constexpr auto kDevice = c10::DeviceType::CUDA;
#else
constexpr auto kDevice = c10::DeviceType::CPU;
#endif

isg::DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat: return isg::DType::f32;
    case at::kHalf: return isg::DType::f16;
    case at::kBFloat16: return isg::DType::bf16;
    case at::kDouble: return isg::DType::f64;
    default: TORCH_CHECK_TYPE(false, "cuda_ops: float32, float16, bfloat16 or float64 expected, got ", t.scalar_type());
  }
}

at::ScalarType acc_type(const Tensor& t) { return t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

template <class F>
void launch(const Tensor& t, F f) {
  TORCH_CHECK(t.device().type() == kDevice, "cuda_ops: a tensor on ", t.device(), " came to another device's kernel");
#ifdef ISG_ON_GPU
  const c10::cuda::CUDAGuard guard(t.device());
  const int32_t status = f(static_cast<void*>(c10::cuda::getCurrentCUDAStream().stream()));
  if (status > 0) C10_CUDA_CHECK(static_cast<cudaError_t>(status));
#else
  const int32_t status = f(nullptr);
#endif
  TORCH_CHECK(status == isg::kOk, "cuda_ops: the kernel refused its arguments with status ", status);
}

// ------------------------------------------------------------------------------------------------ bias_act

isg::Act act_of(c10::string_view name) {
  constexpr c10::string_view names[] = {"linear",  "relu", "lrelu", "tanh", "sigmoid",
                                        "elu", "selu", "softplus", "swish"};
  for (int32_t i = 0; i < 9; i++)
    if (name == names[i]) return static_cast<isg::Act>(i);
  TORCH_CHECK_VALUE(false, "bias_act: unknown act '", name, "'");
}

isg::BiasActMath math_of(c10::string_view act, double alpha, double gain, std::optional<double> clamp) {
  return {act_of(act), alpha, gain, clamp.value_or(-1)};
}

// The kernels see memory, whatever the order of the axes in it: a tensor without gaps needs no copy.
Tensor dense(const Tensor& t) {
  return t.is_non_overlapping_and_dense() ? t : at::empty_like(t).copy_(t);
}

Tensor with_layout_of(const Tensor& t, const Tensor& like, const char* name) {
  TORCH_CHECK_VALUE(t.sizes() == like.sizes(), "bias_act: ", name, " must have shape ", like.sizes(), ", got ", t.sizes());
  TORCH_CHECK_TYPE(t.scalar_type() == like.scalar_type(), "bias_act: ", name, " must be ", like.scalar_type(), ", got ",
                   t.scalar_type());
  TORCH_CHECK(t.device() == like.device(), "bias_act: ", name, " must be on ", like.device(), ", is on ", t.device());
  return t.strides() == like.strides() ? t : at::empty_like(like).copy_(t);
}

// Where in memory the channels of `t` are: axis `dim`, which lies somewhere in its order of strides.
isg::BiasActShape shape_of(const Tensor& t, int64_t dim) {
  const int64_t numel = t.numel();
  if (dim >= t.dim() || t.size(dim) <= 1) return {1, 1, numel};
  const int64_t channels = t.size(dim), inner = t.stride(dim);
  return {numel / (channels * inner), channels, inner};
}

// A vector along the channels, in the type of computation.
Tensor vector_of(const OptTensor& b, const Tensor& like, int64_t dim, const char* name) {
  if (!b) return Tensor();
  TORCH_CHECK_VALUE(dim >= 0 && dim < like.dim() && b->dim() == 1 && b->size(0) == like.size(dim), "bias_act: ", name,
                    " of shape ", b->sizes(), " doesn't fit axis ", dim, " of ", like.sizes());
  TORCH_CHECK(b->device() == like.device(), "bias_act: ", name, " must be on ", like.device(), ", is on ", b->device());
  return b->to(acc_type(like)).contiguous();
}

const void* data(const Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

// The sum over a channel, and the memory it takes; both empty where it isn't wanted.
struct ChannelSum {
  Tensor sum, workspace;
  ChannelSum(const Tensor& t, int64_t dim, const isg::BiasActShape& shape, bool wanted) {
    const auto options = t.options().dtype(acc_type(t)).memory_format(c10::nullopt);
    if (!wanted) {
      sum = at::empty({0}, options);
      return;
    }
    TORCH_CHECK_VALUE(dim >= 0 && dim < t.dim(), "bias_act: axis ", dim, " is out of range for ", t.sizes());
    sum = t.numel() ? at::empty({t.size(dim)}, options) : at::zeros({t.size(dim)}, options);
    if (const int64_t bytes = t.numel() ? kernels::bias_act_workspace(shape, dtype_of(t)) : 0)
      workspace = at::empty({bytes}, options.dtype(at::kByte));
  }
  void* sum_data() const { return sum.numel() ? sum.mutable_data_ptr() : nullptr; }
  void* workspace_data() const { return workspace.defined() ? workspace.mutable_data_ptr() : nullptr; }
};

Tensor bias_act(const Tensor& x_, const OptTensor& b_, int64_t dim, c10::string_view act, double alpha, double gain,
                std::optional<double> clamp) {
  const Tensor x = dense(x_), b = vector_of(b_, x, dim, "b");
  const isg::DType dtype = dtype_of(x);
  Tensor y = at::empty_like(x);
  if (!x.numel()) return y;
  const isg::BiasActForward p{data(x), data(b), y.mutable_data_ptr(),
                              b.defined() ? shape_of(x, dim) : isg::BiasActShape{x.numel(), 1, 1},
                              math_of(act, alpha, gain, clamp)};
  launch(x, [&](void* stream) { return kernels::bias_act_forward(p, dtype, stream); });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_backward(const Tensor& dy_, const OptTensor& dy_b_, const OptTensor& ref_,
                                             const OptTensor& b_, int64_t dim, c10::string_view act, double alpha,
                                             double gain, std::optional<double> clamp, bool ref_is_output,
                                             bool with_db) {
  Tensor ref, dy;
  if (ref_) {
    ref = dense(*ref_);
    dy = with_layout_of(dy_, ref, "dy");
  } else {
    TORCH_CHECK_VALUE(act == "linear" && !clamp, "bias_act: only a linear one without clamp needs no ref");
    dy = dense(dy_);
  }
  TORCH_CHECK_VALUE(!ref_is_output || (ref_ && !clamp && gain > 0 && (act == "linear" || act == "relu" || act == "lrelu")),
                    "bias_act: the output tells the slope of linear, relu and lrelu with gain > 0 without clamp only");
  const isg::DType dtype = dtype_of(dy);
  const Tensor dy_b = vector_of(dy_b_, dy, dim, "dy_b"), b = ref_is_output ? Tensor() : vector_of(b_, dy, dim, "b");
  Tensor dx = at::empty_like(dy);
  const bool channelled = with_db || b.defined() || dy_b.defined();
  const isg::BiasActShape shape = channelled ? shape_of(dy, dim) : isg::BiasActShape{dy.numel(), 1, 1};
  const ChannelSum db(dy, dim, shape, with_db);
  if (!dy.numel()) return {dx, db.sum};
  const isg::BiasActBackward p{data(dy),     data(dy_b),          data(ref),     data(b), dx.mutable_data_ptr(),
                               db.sum_data(), db.workspace_data(), ref_is_output, shape,   math_of(act, alpha, gain, clamp)};
  launch(dy, [&](void* stream) { return kernels::bias_act_backward(p, dtype, stream); });
  return {dx, db.sum};
}

std::tuple<Tensor, Tensor, Tensor> bias_act_double_backward(const OptTensor& ddx_, const OptTensor& ddb_,
                                                            const Tensor& dy_, const Tensor& x_, const OptTensor& b_,
                                                            int64_t dim, c10::string_view act, double alpha, double gain,
                                                            std::optional<double> clamp, bool with_db) {
  const Tensor x = dense(x_), dy = with_layout_of(dy_, x, "dy");
  const Tensor ddx = ddx_ ? with_layout_of(*ddx_, x, "ddx") : Tensor();
  const isg::DType dtype = dtype_of(x);
  const Tensor ddb = vector_of(ddb_, x, dim, "ddb"), b = vector_of(b_, x, dim, "b");
  Tensor d_dy = at::empty_like(x), d_x = at::empty_like(x);
  const bool channelled = with_db || b.defined() || ddb.defined();
  const isg::BiasActShape shape = channelled ? shape_of(x, dim) : isg::BiasActShape{x.numel(), 1, 1};
  const ChannelSum db(x, dim, shape, with_db);
  if (!x.numel()) return {d_dy, d_x, db.sum};
  const isg::BiasActDoubleBackward p{data(ddx), data(ddb), data(dy), data(x), data(b), d_dy.mutable_data_ptr(),
                                     d_x.mutable_data_ptr(), db.sum_data(), db.workspace_data(), shape,
                                     math_of(act, alpha, gain, clamp)};
  launch(x, [&](void* stream) { return kernels::bias_act_double_backward(p, dtype, stream); });
  return {d_dy, d_x, db.sum};
}

// ----------------------------------------------------------------------------------------------- upfirdn2d

isg::UpfirdnAxis axis_of(int64_t in, int64_t taps, int64_t up, int64_t down, int64_t pad0, int64_t pad1) {
  TORCH_CHECK_VALUE(up >= 1 && down >= 1, "upfirdn2d: up and down must be at least 1, got ", up, " and ", down);
  const int64_t room = in * up + pad0 + pad1 - taps;  // negative: no output
  const int64_t out = room < 0 ? 0 : room / down + 1;
  constexpr int64_t kMost = INT32_MAX;
  TORCH_CHECK_VALUE(out >= 1, "upfirdn2d: no output is left for an axis of ", in, " pixels");
  TORCH_CHECK_VALUE(in * up < kMost && out * down < kMost && taps < kMost && std::abs(pad0) < kMost,
                    "upfirdn2d: one axis is limited to 2^31 - 2 upsampled pixels");
  return {int32_t(in), int32_t(out), int32_t(taps), int32_t(up), int32_t(down), int32_t(pad0)};
}

Tensor upfirdn2d(const Tensor& x_, const Tensor& f_, at::IntArrayRef up, at::IntArrayRef down, at::IntArrayRef pad,
                 bool flip, double gain) {
  TORCH_CHECK_VALUE(x_.dim() == 4, "upfirdn2d: x must have shape [N, C, H, W], got ", x_.sizes());
  TORCH_CHECK_VALUE((f_.dim() == 1 || f_.dim() == 2) && f_.numel() > 0, "upfirdn2d: f must have shape [taps] or [fh, fw]");
  TORCH_CHECK_TYPE(f_.scalar_type() == at::kFloat, "upfirdn2d: f must be float32, got ", f_.scalar_type());
  TORCH_CHECK(f_.device() == x_.device(), "upfirdn2d: f must be on ", x_.device(), ", is on ", f_.device());
  TORCH_CHECK_VALUE(up.size() == 2 && down.size() == 2 && pad.size() == 4, "upfirdn2d: [x, y] factors, [x0, x1, y0, y1] padding");
  // As reference.memory_format: the result of a slice is like the tensor that it was cut from.
  const bool channels_last = x_.size(1) > 1 && x_.stride(1) == 1 && !x_.is_contiguous();
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const Tensor x = x_.contiguous(format), f = f_.contiguous();
  const isg::DType dtype = dtype_of(x);
  const isg::UpfirdnAxis ax = axis_of(x.size(3), f.size(-1), up[0], down[0], pad[0], pad[1]);
  const isg::UpfirdnAxis ay = axis_of(x.size(2), f.size(0), up[1], down[1], pad[2], pad[3]);
  Tensor y = at::empty({x.size(0), x.size(1), ay.out, ax.out}, x.options().memory_format(format));
  if (!y.numel()) return y;
  const isg::Upfirdn2d p{data(x), f.const_data_ptr<float>(), y.mutable_data_ptr(), x.size(0), x.size(1), ax, ay,
                         channels_last, f.dim() == 1, flip, gain};
  launch(x, [&](void* stream) { return kernels::upfirdn2d(p, dtype, stream); });
  return y;
}

}  // namespace

#ifdef ISG_ON_GPU
TORCH_LIBRARY_IMPL(ISG_NAMESPACE, CUDA, m) {
#else
TORCH_LIBRARY_IMPL(ISG_NAMESPACE, CPU, m) {
#endif
  m.impl("bias_act", bias_act);
  m.impl("bias_act_backward", bias_act_backward);
  m.impl("bias_act_double_backward", bias_act_double_backward);
  m.impl("upfirdn2d", upfirdn2d);
}
