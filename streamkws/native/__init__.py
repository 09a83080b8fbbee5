"""The kernels compiled ahead of time, so that a start needs neither numba nor LLVM.

    library     whether a library belongs to this version and this CPU, and loading it
    calls       the library's functions as Python calls them
    signatures  which functions there are, and what they take
    c/          a header and an example for programs in C

Building one takes numba and llvmlite:

    targets     systems and kinds of CPU, and the code that asks a CPU what it has
    entries     the kernels as functions of numbers alone
    python_call a function that CPython calls at the cost of one of its own
    emit        the machine code of all these for one kind of CPU
    build       a library and its description
"""
