"""The kernels compiled ahead of time, so that a start needs neither numba nor LLVM.

library     whether a library belongs to this version and this CPU, and loading it
calls       the library's functions as Python calls them
entries     which kernels a library has, each as a function of numbers alone; needs numba, as all below
emit        the machine code of these for one kind of CPU
python_call a function that CPython calls at the cost of one of its own
build       a library and its description
"""
