#!/usr/bin/env python3
"""Compares Grindstone's training step with PyTorch autograd, model by model.

    crosscheck.py                          a quick selection
    crosscheck.py --all --json out.jsonl   the whole table; what out.jsonl already has is left out
    crosscheck.py --only 'resnet18.*fused' models whose label matches
    crosscheck.py --break Relu             the rule of Relu scaled by 1.01 must be caught (needs a grindstone built with -tags breakrule)
    crosscheck.py --table docs/models.md --json out.jsonl --no-run   writes the table from results

Most models are exported by PyTorch with random weights; `grindstone inspect --training-graph` writes its training step, which ONNX Runtime runs. Losses,
every gradient, BatchNormalization's running statistics after one step and the weights after five steps of SGD are compared with PyTorch in
float64. An error may be 1e-4 of the norm, or five times that of PyTorch in float32 where rounding alone is larger.

Keras models (with --tensorflow), scikit-learn's and quantized ones have no PyTorch module to compare with: see foreign.py.

Exit status: 0 every model that is read and has all its rules is exact, 1 one is not (with --break: every model failed to notice).
"""
import argparse
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import zoo


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--grindstone", default="bin/grindstone", help="the binary")
    p.add_argument("--all", action="store_true", help="the whole table, not the quick selection")
    p.add_argument("--only", default="", metavar="REGEX", help="only models whose label matches")
    p.add_argument("--list", action="store_true", help="list the models and stop")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="append a JSON line per model")
    p.add_argument("--again", action="store_true", help="run also what FILE has")
    p.add_argument("--time", type=int, default=0, metavar="N", help="time N steps of each side as well")
    p.add_argument("--timeout", type=int, default=600, metavar="SECONDS", help="a model")
    p.add_argument("--break", dest="broken", default="", metavar="OP", help="expect an error")
    p.add_argument("--table", type=pathlib.Path, metavar="FILE", help="write the table as Markdown")
    p.add_argument("--no-run", action="store_true", help="only the table")
    p.add_argument("--cache", metavar="FOLDER", help="keep the exported models there and use those that are there")
    p.add_argument("--tensorflow", metavar="PYTHON", help="an interpreter with requirements-tensorflow.txt, for Keras models")
    p.add_argument("--case", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.case:
        return one(a)
    cases = [c for c in zoo.cases("all" if a.all else "quick") if re.search(a.only, c.label) and (a.tensorflow or c.source != "keras")]
    if a.list:
        print("\n".join(c.label for c in cases))
        return 0
    rows = read(a.json)
    if not a.no_run:
        for i, c in enumerate(cases):
            if not a.again and any((r["model"], r["how"]) == (f"{c.source}/{c.name}", c.how) for r in rows):
                continue
            row = run(a, c)
            rows.append(row)
            print(f"[{i + 1}/{len(cases)}] {describe(row)}", flush=True)
            if a.json:
                with a.json.open("a") as f:
                    f.write(json.dumps(row) + "\n")
    if a.table:
        import table

        table.write(a.table, read(a.json), [(f"{c.source}/{c.name}", c.how) for c in zoo.cases("all")])
    if a.broken:
        caught = [r for r in rows if r["trains"] and not r["exact"]]
        print(f"{a.broken} broken: caught by {len(caught)} of {len(rows)} models")
        return 0 if caught else 1
    bad = [r for r in rows if r["trains"] and not r["exact"]]
    print(f"{sum(r['exact'] for r in rows)} of {len(rows)} models exact, {len(bad)} not")
    return 1 if bad or not any(r["exact"] for r in rows) else 0


def read(path):
    """The latest row of every model."""
    rows = {}
    if path and path.exists():
        for line in path.read_text().splitlines():
            r = json.loads(line)
            rows[r["model"], r["how"]] = r
    return list(rows.values())


def run(a, case):
    """A process of its own: what a model leaves in memory, or crashes, is gone with it."""
    command = [sys.executable, __file__, "--grindstone", a.grindstone, "--time", str(a.time), "--break", a.broken, *(["--cache", a.cache] if a.cache else []), *(["--tensorflow", a.tensorflow] if a.tensorflow else []),
               "--case", json.dumps(dataclasses.asdict(case))]
    blank = {"model": f"{case.source}/{case.name}", "how": case.how, "exporter": case.exporter, "opset": case.opset, "reads": False, "trains": False, "exact": False}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=a.timeout, env=dict(os.environ, OMP_NUM_THREADS="2" if a.time else "1"))
    except subprocess.TimeoutExpired:
        return blank | {"stage": "time", "reason": f"took longer than {a.timeout} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    message = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return blank | {"stage": "error", "reason": message[:300]}


def one(a):
    import compare

    fields = json.loads(a.case)
    fields["arguments"] = tuple(map(tuple, fields["arguments"]))
    with tempfile.TemporaryDirectory() as folder:
        row = compare.check(zoo.Case(**fields), a.grindstone, folder, a.broken, a.time, a.cache, a.tensorflow)
    print(json.dumps(row))
    return 0


def describe(row):
    what = f"{row['model']} ({row['how']})"
    if row["exact"]:
        ratio = f", {row['time_ratio']} of PyTorch's time" if "time_ratio" in row else ""
        theirs = f", PyTorch's {row['float32_pytorch']:.1e}" if "float32_pytorch" in row else ""
        return f"{what}: exact to {row['error']:.1e} (float32 {row['float32']:.1e}{theirs}){ratio}, {row['seconds']} s"
    return f"{what}: {row['stage']}: {row['reason']}"


if __name__ == "__main__":
    sys.exit(main())
