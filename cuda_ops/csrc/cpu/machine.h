// What the kernels ask of the machine: threads (those of torch, so that torch.set_num_threads holds here too), memory, and
// whether it rounds to bfloat16 itself.
#pragma once
#include <cstddef>
#include <cstdint>

namespace isg::cpu {

// Calls f(context, begin, end) for parts of [0, n), at least `grain` long, on torch's threads.
void parallel_range(int64_t n, int64_t grain, void (*f)(void*, int64_t, int64_t), void* context);

// 64-byte aligned memory; throws std::bad_alloc.
void* allocate(size_t bytes);
void release(void* memory);

extern bool rounds_to_bfloat16;  // set where kernels are chosen

}  // namespace isg::cpu
