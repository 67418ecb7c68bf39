"""Turns the PTX that nvcc made into C++ that runs on the fibers of cuda_emu.h (see ptx_run.h).

``ptx2cpp.py FILE.ptx [REGEX] > FILE.cpp`` translates the kernels whose names match. An instruction that isn't
known here is an error, never a guess.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_WIDTH = {f"{kind}{bits}": bits for kind in "bus" for bits in (8, 16, 32, 64)} | {
    "f16": 16,
    "f32": 32,
    "f64": 64,
}
_TYPE = {"f32": "float", "f64": "double", "f16": "_Float16"} | {
    f"{kind}{bits}": f"{'int' if kind == 's' else 'uint'}{bits}_t"
    for kind in "bus"
    for bits in (8, 16, 32, 64)
}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COMPARE |= {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # of unsigned numbers
_OPERATOR = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
_VECTORS = {"tid": "emu::tid()", "ctaid": "emu::bid()", "ntid": "emu::S().block", "nctaid": "emu::S().grid"}
_SPECIAL = {f"%{ptx}.{axis}": f"{cpp}.{axis}" for ptx, cpp in _VECTORS.items() for axis in "xyz"}
_SPECIAL["%laneid"] = "emu::lane()"
_ROUNDING = {"rm": "FE_DOWNWARD", "rz": "FE_TOWARDZERO", "rp": "FE_UPWARD"}
_INTEGER, _FLOAT, _MEMORY, _CONTROL, _SHUFFLE = range(5)  # classes that the profile tells apart


class UnsupportedError(Exception):
    """An instruction or operand that this translator doesn't know."""


class Kernel:
    """One entry of a PTX file, translated."""

    def __init__(self, name: str, parameters: str, body: str) -> None:
        self.name = name
        names = re.findall(r"\.param[^,)]*?([\w$]+)(?:\[\d+\])?\s*(?:,|$)", parameters.strip(), re.M)
        self.parameters = {parameter: i for i, parameter in enumerate(names)}
        self.registers: dict[str, str] = {}
        self.shared: dict[str, tuple[int, int]] = {}  # name -> offset, size
        self.shared_bytes = 0
        self.lines: list[str] = []
        text = re.sub(r"//.*", "", body)
        for statement in re.findall(r"\s*(\$?\w+:|[^;]+;)", text):
            # The braces around inline assembly open no scope that matters.
            self._statement(" ".join(statement.strip().rstrip(";").split()).lstrip("{} "))

    def _statement(self, s: str) -> None:
        if not s or s.startswith((".pragma", ".loc", ".file")):
            return
        if match := re.match(r"(\$?\w+):\s*(.*)", s):
            self.lines.append(f"{_label(match[1])}:;")
            self._statement(match[2])
        elif match := re.match(r"\.reg \.(\w+) (%\w+)<(\d+)>", s):
            kind = "bool" if match[1] == "pred" else f"uint{_WIDTH[match[1]]}_t"
            self.registers |= {f"{match[2]}{i}": kind for i in range(int(match[3]))}
        elif match := re.match(r"\.reg \.(\w+) (%\w+)$", s):  # of inline assembly
            self.registers[match[2]] = f"uint{_WIDTH[match[1]]}_t"
        elif match := re.match(r"\.shared \.align (\d+) \.b8 ([\w$]+)\[(\d+)\]", s):
            align = max(16, int(match[1]))
            self.shared_bytes = (self.shared_bytes + align - 1) // align * align
            self.shared[match[2]] = self.shared_bytes, int(match[3])
            self.shared_bytes += int(match[3]) + 64  # a gap, so that running off one never lands in the next
        elif match := re.match(r"(?:@(!?)(%p\d+) )?([a-z][\w.]*)\s*(.*)$", s):
            op = match[3].split(".")
            try:
                code = self._instruction(op, _split(match[4]))
            except (UnsupportedError, KeyError, IndexError) as e:
                raise UnsupportedError(f"{self.name}: {s} ({e})") from e
            if match[2]:
                code = f"if ({match[1]}{_variable(match[2])}) {{ {code} }}"
            self.lines.append(f"I({_class_of(op)}) {code}  // {s[:70]}")
        else:
            raise UnsupportedError(s)

    # ---- operands

    def _read(self, x: str, kind: str) -> str:
        """Operand `x`, read as a value of PTX type `kind`."""
        c = _TYPE.get(kind, "bool")
        if x in _SPECIAL:
            return f"({c}){_SPECIAL[x]}"
        if x in self.registers:
            return _variable(x) if self.registers[x] == "bool" else f"bits<{c}>({_variable(x)})"
        if x in self.shared:
            return f"({c}){self.shared[x][0] + 1024}u"
        if match := re.fullmatch(r"([\w$]+)\+(\d+)", x):
            return f"({c})({self._read(match[1], kind)} + {match[2]})"
        if x in self.parameters:
            return f"({c})reinterpret_cast<uint64_t>(A[{self.parameters[x]}])"
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", x):
            return f"bits<{c}>(uint32_t(0x{x[2:]}u))"
        if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", x):
            return f"bits<{c}>(uint64_t(0x{x[2:]}ull))"
        if x == "-9223372036854775808":
            return f"({c})INT64_MIN"
        if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", x):
            return f"({c})({x}ll)"
        raise UnsupportedError(f"operand {x}")

    def _write(self, register: str, value: str) -> str:
        if register == "_":
            return f"(void)({value});"
        variable = _variable(register)
        return (
            f"{variable} = ({value});" if self.registers[register] == "bool" else f"set({variable}, {value});"
        )

    @staticmethod
    def _address(x: str) -> tuple[str, str]:
        match = re.match(r"\[([^\]+]+)(?:\+(-?\w+))?\]", x)
        if not match:
            raise UnsupportedError(f"address {x}")
        return match[1], match[2] or "0"

    # ---- instructions

    def _instruction(self, op: list[str], a: list[str]) -> str:
        name, kind = op[0], op[-1]
        if name in ("ld", "st"):
            return self._memory(op, a)
        if name == "mov":
            return self._move(kind, a)
        if name == "cvta":
            return self._write(a[0], self._read(a[1], kind))
        if name == "bra":
            return f"goto {_label(a[-1])};"
        if name in ("ret", "exit"):
            return "return;"
        if name in ("bar", "barrier") and op[1:] == ["sync"] and a == ["0"]:
            return "emu::wait(emu::kBlock, __LINE__, 0);"
        if name == "shfl":
            return self._shuffle(op, a)
        if name == "setp":
            return self._write(a[0], self._comparison(op[1], kind, a))
        if name == "selp":
            return self._write(
                a[0], f"{_variable(a[3])} ? {self._read(a[1], kind)} : {self._read(a[2], kind)}"
            )
        if name == "cvt":
            return self._write(a[0], self._conversion(op, a[1]))
        if kind[0] == "f":
            return self._write(a[0], self._float(op, [self._read(x, kind) for x in a[1:]]))
        return self._write(a[0], self._integer(op, a))

    def _memory(self, op: list[str], a: list[str]) -> str:
        load, kind = op[0] == "ld", op[-1]
        base, offset = self._address(a[1] if load else a[0])
        registers = [r.strip() for r in (a[0] if load else a[1]).strip("{}").split(",")]
        c = _TYPE[kind]
        if op[1] == "param":
            memory = (
                f"A[{self.parameters[base]}]"
                if base in self.parameters
                else f"reinterpret_cast<void*>({_variable(base)})"
            )
            step = _WIDTH[kind] // 8
            return " ".join(
                self._write(r, f"at<{c}>({memory}, {offset} + {i * step})") for i, r in enumerate(registers)
            )
        space = op[2] if op[1] in ("volatile", "relaxed", "weak") else op[1]
        if space not in ("shared", "global"):
            raise UnsupportedError(f"memory space {space}")
        address = f"{self._read(base, 'u32' if space == 'shared' else 'u64')} + ({offset})"
        head = f"{{ {c}* q = {space}_at<{c}, {len(registers)}, {int(not load)}>({address}, __LINE__); "
        if load:
            return head + " ".join(self._write(r, f"q[{i}]") for i, r in enumerate(registers)) + " }"
        return head + " ".join(f"q[{i}] = {self._read(r, kind)};" for i, r in enumerate(registers)) + " }"

    def _move(self, kind: str, a: list[str]) -> str:
        if a[0].startswith("{"):
            parts = [r.strip() for r in a[0].strip("{}").split(",")]
            width = _WIDTH[kind] // len(parts)
            whole = self._read(a[1], kind)
            return " ".join(
                self._write(r, f"uint{width}_t({whole} >> {i * width})") for i, r in enumerate(parts)
            )
        if a[1].startswith("{"):
            parts = [r.strip() for r in a[1].strip("{}").split(",")]
            width, c = _WIDTH[kind] // len(parts), _TYPE[f"b{_WIDTH[kind]}"]
            return self._write(
                a[0],
                " | ".join(
                    f"({c}({self._read(r, f'b{width}')}) << {i * width})" for i, r in enumerate(parts)
                ),
            )
        if kind == "pred" and a[1] in ("0", "1", "-1"):
            return self._write(a[0], "false" if a[1] == "0" else "true")
        return self._write(a[0], self._read(a[1], kind))

    def _shuffle(self, op: list[str], a: list[str]) -> str:
        mode = op[2]
        if mode not in ("up", "down", "idx", "bfly"):
            raise UnsupportedError(mode)
        value, predicate = [*a[0].split("|"), "_"][:2]
        b, c, mask = (self._read(x, "u32") for x in a[2:5])
        call = f"shuffle_{mode}({mask}, {self._read(a[1], 'b32')}, {b}, {c}, &valid, __LINE__)"
        return f"{{ bool valid; {self._write(value, call)} {self._write(predicate, 'valid')} }}"

    def _comparison(self, how: str, kind: str, a: list[str]) -> str:
        if len(a) != 3:
            raise UnsupportedError("setp with a predicate to combine with")
        x, y = self._read(a[1], kind), self._read(a[2], kind)
        if kind[0] == "f":
            if how in ("num", "nan"):
                return f"{'!' if how == 'num' else ''}unordered({x}, {y})"
            if how == "ne":
                return f"(!unordered({x}, {y}) && {x} != {y})"
            if how[-1] == "u" and how[:-1] in _COMPARE:
                return f"(unordered({x}, {y}) || {x} {_COMPARE[how[:-1]]} {y})"
        return f"{x} {_COMPARE[how]} {y}"

    def _conversion(self, op: list[str], operand: str) -> str:
        to, source = op[-2], op[-1]
        modes = set(op[1:-2])
        if to == "bf16" or source == "bf16":
            if to == "bf16" and source == "f32" and modes == {"rn"}:
                return f"__float2bfloat16_rn({self._read(operand, 'f32')}).v"
            if to == "f32" and source == "bf16" and not modes:
                return f"__bfloat162float({{{self._read(operand, 'u16')}}})"
            raise UnsupportedError("bf16")
        x = self._read(operand, source)
        if to == source == "f32" and modes == {"sat"}:
            return f"saturate({x})"
        if to == source and to[0] == "f" and modes == {"rni"}:
            return f"std::nearbyint({x})"
        if modes - {"rn"} or (to[0] != "f" and source[0] == "f"):
            raise UnsupportedError(f"modes {modes}")
        return f"({_TYPE[to]})({x})"

    def _float(self, op: list[str], r: list[str]) -> str:
        name, kind, modes = op[0], op[-1], set(op[1:-1])
        c = _TYPE[kind]
        if modes & {"rm", "rz", "rp"}:
            (mode,) = modes & {"rm", "rz", "rp"}
            if modes != {mode} or name not in ("fma", "add") or kind != "f32":
                raise UnsupportedError(f"modes {modes}")
            return (
                f"fma_rounded({_ROUNDING[mode]}, {', '.join(r if name == 'fma' else [r[0], '1.0f', r[1]])})"
            )
        if "approx" in modes:
            inner = {"rcp": "({c})1 / {x}", "ex2": "std::exp2({x})", "lg2": "std::log2({x})"}.get(name)
            if inner is None or modes - {"approx", "ftz"}:
                raise UnsupportedError(f"modes {modes}")
            if "ftz" in modes:
                return f"flushed({inner.format(c=c, x=f'flushed({r[0]})')})"
            return inner.format(c=c, x=r[0])
        if modes - {"rn"}:
            raise UnsupportedError(f"modes {modes}")
        if name in ("add", "sub", "mul", "div"):
            return f"{r[0]} {_OPERATOR[name]} {r[1]}"
        if name in ("fma", "min", "max"):
            return f"std::{name if name == 'fma' else 'f' + name}({', '.join(r)})"
        if name == "copysign":
            return f"std::copysign({r[1]}, {r[0]})"
        simple = {"neg": "-{0}", "abs": "std::fabs({0})", "rcp": "({1})1 / {0}", "sqrt": "std::sqrt({0})"}
        return simple[name].format(r[0], c)

    def _integer(self, op: list[str], a: list[str]) -> str:
        name, kind = op[0], op[-1]
        c = _TYPE.get(kind, "bool")
        r = [self._read(x, kind) for x in a[1:]] if kind in _TYPE else [_variable(x) for x in a[1:]]
        unsigned = c.replace("int", "uint").replace("uuint", "uint")  # where overflow is defined to wrap
        if name in ("add", "sub") and len(op) == 2:
            return f"({c})(({unsigned}){r[0]} {'+' if name == 'add' else '-'} ({unsigned}){r[1]})"
        if name in ("mul", "mad"):
            width, big = _WIDTH[kind], "i128" if kind[0] == "s" else "u128"
            if "wide" in op:
                wide = c.replace(str(width), str(2 * width))
                product = f"({wide})(({wide}){r[0]} * ({wide}){r[1]})"
                return (
                    f"({wide})({product} + {self._read(a[3], kind[0] + str(2 * width))})"
                    if name == "mad"
                    else product
                )
            product = f"({c})({big}({r[0]}) * {big}({r[1]}) >> {width if 'hi' in op else 0})"
            return f"({c})(({unsigned})({product}) + ({unsigned}){r[2]})" if name == "mad" else product
        if name in ("div", "rem"):
            return f"{name}_checked({r[0]}, {r[1]}, __LINE__)"
        if name in ("min", "max"):
            return f"std::{name}<{c}>({r[0]}, {r[1]})"
        if name in ("and", "or", "xor"):
            return f"({c})({r[0]} {_OPERATOR[name]} {r[1]})"
        if name == "not":
            return f"!{r[0]}" if kind == "pred" else f"({c})~{r[0]}"
        if name == "neg":
            return f"({c})(0 - ({unsigned}){r[0]})"
        if name == "abs":
            return f"std::abs({r[0]})"
        if name in ("shl", "shr"):
            return f"{name}<{c}>({r[0]}, {self._read(a[2], 'u32')})"
        if name == "bfe" and kind == "u32":
            return f"extract_bits({r[0]}, {self._read(a[2], 'u32')}, {self._read(a[3], 'u32')})"
        if name == "bfi" and kind == "b32":
            return f"insert_bits({r[0]}, {r[1]}, {self._read(a[3], 'u32')}, {self._read(a[4], 'u32')})"
        raise UnsupportedError(name)

    def emit(self, i: int) -> str:
        registers = "\n".join(f"  {kind} {_variable(r)} = 0;" for r, kind in self.registers.items())
        symbols = (
            ", ".join(f"{{{offset + 1024}, {size}}}" for offset, size in self.shared.values()) or "{0, 0}"
        )
        body = "\n  ".join(self.lines)
        return (
            f"static const Symbol symbols{i}[] = {{{symbols}}};\n"
            f"static void kernel{i}(void** A) {{\n  enter(symbols{i}, {len(self.shared)});\n"
            f"{registers}\n  {body}\n}}\n"
        )


def _label(s: str) -> str:
    return s.strip().replace("$", "L")


def _split(s: str) -> list[str]:
    return [x.strip() for x in re.split(r",(?![^{]*})", s)] if s else []


def _variable(register: str) -> str:
    return register.replace("%", "R_")


def _class_of(op: list[str]) -> int:
    if op[0] in ("ld", "st"):
        return _INTEGER if op[1] == "param" else _MEMORY
    if op[0] == "shfl":
        return _SHUFFLE
    if op[0] in ("bra", "ret", "exit", "bar", "barrier", "setp"):
        return _CONTROL
    return _FLOAT if op[-1][0] == "f" and op[0] != "mov" else _INTEGER


def translate(ptx: str, pattern: str = "") -> str:
    """C++ for the kernels of `ptx` whose (mangled) names match."""
    entries = re.findall(r"\.entry\s+([\w$]+)\((.*?)\)\s*(?:\.\w+ [\d, ]+\s*)*\{(.*?)\n\}", ptx, re.S)
    if len(entries) != len(re.findall(r"\.entry", ptx)):
        raise UnsupportedError("an entry that isn't understood")
    kernels = [Kernel(*entry) for entry in entries if re.search(pattern, entry[0])]
    table = ", ".join(f'{{"{kernel.name}", kernel{i}}}' for i, kernel in enumerate(kernels))
    return "\n".join(
        [
            '#include "ptx_run.h"',
            *(kernel.emit(i) for i, kernel in enumerate(kernels)),
            f"static const Register registered[] = {{{table}}};",
        ]
    )


if __name__ == "__main__":
    print(translate(Path(sys.argv[1]).read_text(), *sys.argv[2:]))
