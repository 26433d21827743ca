"""What stops an interpreted kernel."""


class Fault(Exception):
    """Something that a kernel must not do, such as an access outside of every tensor."""


class UnknownInstruction(Fault):
    """An opcode, modifier or operand that the interpreter does not have."""
