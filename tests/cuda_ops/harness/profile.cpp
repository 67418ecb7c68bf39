// Counts what the PTX of the kernels executes, by output: instructions, bytes in 32-byte sectors, wavefronts of shared
// memory. profile N C H W; one line of JSON for each operation (fp32, NCHW).
#include <cstdio>
#include <cstdlib>

#include "ops.h"
#include "ptx_run.h"

using namespace isg;

static void report(const char* name, int status, double outputs, double least_bytes) {
  Profile& p = g_profile;
  p.flush();
  uint64_t all = 0;
  for (const uint64_t n : p.instructions) all += n;
  std::printf("{\"operation\": \"%s\", \"status\": %d, \"instructions\": %.4f, \"floating\": %.4f, \"memory\": %.4f, "
              "\"shuffles\": %.4f, \"bytes\": %.4f, \"least_bytes\": %.4f, \"wavefronts\": %.4f, \"global_access\": {",
              name, status, all / outputs, p.instructions[1] / outputs, p.instructions[2] / outputs, p.instructions[4] / outputs,
              (p.sectors[0] + p.sectors[1]) * 32. / outputs, least_bytes / outputs, p.wavefronts * 32. / outputs);
  const char* separator = "";
  for (int kind = 0; kind < 2; kind++)
    for (auto& [bytes, requests] : p.widths[kind]) {
      std::printf("%s\"%s %u\": %.5f", separator, kind ? "store" : "load", bytes * 8, requests * 32. / outputs);
      separator = ", ";
    }
  std::printf("}}\n");
  p = Profile();
}

template <class T>
static T* memory(size_t n) {
  T* p = static_cast<T*>(std::aligned_alloc(256, (n * sizeof(T) + 255) / 256 * 256));
  for (size_t i = 0; i < n; i++) p[i] = T(static_cast<int>(i % 17) - 8);
  return p;
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int n = std::atoi(argv[1]), c = std::atoi(argv[2]), h = std::atoi(argv[3]), w = std::atoi(argv[4]);
  const size_t elements = size_t(n) * c * h * w;
  float *x = memory<float>(elements), *y = memory<float>(elements * 4), *dy = memory<float>(elements), *f = memory<float>(16),
        *b = memory<float>(static_cast<size_t>(c)), *db = memory<float>(static_cast<size_t>(c));
  const BiasActShape shape{n, c, int64_t(h) * w};
  const BiasActMath math{Act::lrelu, 0.2, 1.4, -1};
  const double e = double(elements);
  int status = cuda::bias_act_forward({x, b, y, shape, math}, DType::f32, nullptr);
  report("bias_act lrelu", status, e, e * 8);
  float* workspace = memory<float>(static_cast<size_t>(cuda::bias_act_workspace(shape, DType::f32) / 4 + 1));
  status = cuda::bias_act_backward({dy, nullptr, x, nullptr, y, db, workspace, true, shape, math}, DType::f32, nullptr);
  report("bias_act lrelu backward with bias gradient", status, e, e * 12);

  struct Case {
    const char* name;
    int up, down, pad0, pad1;
  };
  for (const Case& k : {Case{"blur", 1, 1, 2, 1}, Case{"up 2", 2, 1, 2, 1}, Case{"down 2", 1, 2, 1, 1}})
    for (const bool separable : {false, true}) {
      const auto axis = [&](int in) {
        return UpfirdnAxis{in, (in * k.up + k.pad0 + k.pad1 - 4) / k.down + 1, 4, k.up, k.down, k.pad0};
      };
      const UpfirdnAxis ax = axis(w), ay = axis(h);
      const double outputs = double(n) * c * ax.out * ay.out;
      status = cuda::upfirdn2d({x, f, y, n, c, ax, ay, false, separable, false, 1}, DType::f32, nullptr);
      char name[64];
      std::snprintf(name, sizeof name, "%s %s", k.name, separable ? "4 taps, separable" : "4x4 taps");
      report(name, status, outputs, (e + outputs) * 4);
    }
}
