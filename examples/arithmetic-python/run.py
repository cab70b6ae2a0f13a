#!/usr/bin/env python3
"""The function's name is the first argument, its inputs are variables."""
import operator
import os
import sys

functions = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.floordiv,
}

c = functions[sys.argv[1]](int(os.environ["A"]), int(os.environ["B"]))
print(f"c: {c}")
