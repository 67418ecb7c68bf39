// Both ops for one instruction set; compiled once for each. See simd.h.
#include "bias_act.h"
#include "upfirdn2d.h"
