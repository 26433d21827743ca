"""Exceptions of interpreted kernels."""


class Fault(Exception):
    """An invalid operation of a kernel, such as an access outside of all tensors."""


class UnknownInstruction(Fault):
    """An opcode, modifier or operand that the interpreter does not support."""
