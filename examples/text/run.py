#!/usr/bin/env python3
"""The inputs are in one JSON file; the result is printed between two marks."""
import collections
import json
import os
import sys
import tempfile


def split(text, n):
    words = text.split()
    size = -(-len(words) // n)
    parts = [" ".join(words[i * size:(i + 1) * size]) for i in range(n)]
    print(len(words), "words in", n, "parts")  # goes to the log
    return {"parts": parts}


def count(part):
    return {"counts": ordered(collections.Counter(part.lower().split()))}


def split_file(file, n):
    # The call's own folder, from which the next calls of a workflow get the parts.
    folder = os.environ.get("BERTH_WORK") or tempfile.gettempdir()
    paths = [os.path.join(folder, f"part-{i}.txt") for i in range(n)]
    parts = [open(path, "w") for path in paths]
    with open(file) as lines:
        for number, line in enumerate(lines):
            parts[number % n].write(line)
    for part in parts:
        part.close()
    return {"parts": paths}


def count_file(file):
    with open(file) as lines:
        return count(lines.read())


def merge(counts, least=1):
    total = collections.Counter()
    for part in counts:
        for entry in part:
            total[entry["word"]] += entry["n"]
    kept = {word: n for word, n in total.items() if n >= least}
    return {"counts": ordered(kept), "total": sum(kept.values())}


def ordered(counts):
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"word": word, "n": n} for word, n in pairs]


with open(os.environ["BERTH_INPUT"]) as file:
    inputs = json.load(file)

functions = {"split": split, "count": count, "merge": merge, "split_file": split_file, "count_file": count_file}
result = functions[sys.argv[1]](**inputs)

print("--> START CAPTURE")
print(json.dumps(result))
print("--> END CAPTURE")
