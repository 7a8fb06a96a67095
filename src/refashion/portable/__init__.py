"""Arithmetic whose bits do not depend on the machine.

Every long sum is made of integers small enough to be exact, so that no order of addition, thread
count, vector width, device or library can change it (``exact``). Everything else is elementwise
IEEE-754, one correctly rounded operation at a time (``functions``). Random numbers are a function
of a key and a counter (``streams``). Depends on torch alone; runs on CPU and CUDA.
"""
