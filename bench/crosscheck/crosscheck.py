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
import contextlib
import json
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import tempfile
import time

import compare
import zoo


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--grindstone", default="bin/grindstone", help="the binary")
    p.add_argument("--all", action="store_true", help="the whole table, not the quick selection")
    p.add_argument("--only", default="", metavar="REGEX", help="only models whose label matches")
    p.add_argument("--list", action="store_true", help="list the models and stop")
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="append a JSON line per model")
    p.add_argument("--again", action="store_true", help="run also what FILE has")
    p.add_argument("--time", type=int, default=0, metavar="N", help="then time N steps of each side, of rows in FILE that lack it, one model at a time")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="models at a time")
    p.add_argument("--timeout", type=int, default=600, metavar="SECONDS", help="a model")
    p.add_argument("--break", dest="broken", default="", metavar="OP", help="expect an error")
    p.add_argument("--table", type=pathlib.Path, metavar="FILE", help="write the table as Markdown")
    p.add_argument("--no-run", action="store_true", help="only the table")
    p.add_argument("--cache", metavar="FOLDER", help="keep the exported models there and use those that are there")
    p.add_argument("--tensorflow", metavar="PYTHON", help="an interpreter with requirements-tensorflow.txt, for Keras models")
    a = p.parse_args()
    cases = [c for c in zoo.cases("all" if a.all else "quick") if re.search(a.only, c.label) and (a.tensorflow or c.source != "keras")]
    if a.list:
        print("\n".join(c.label for c in cases))
        return 0
    rows = read(a.json)
    if not a.no_run:
        known = {(r["model"], r["how"]) for r in rows if not a.again}
        todo = [c for c in cases if c.key not in known]
        compared = run([Job(case, compare.check, (case, a.grindstone), (a.broken, a.cache, a.tensorflow), a.timeout) for case in todo], a.jobs)
        for i, row in enumerate(compared):
            rows.append(row)
            print(f"[{len(cases) - len(todo) + i + 1}/{len(cases)}] {describe(row)}", flush=True)
            if a.json:
                with a.json.open("a") as f:
                    f.write(json.dumps(row) + "\n")
    if a.time:
        for row in timed(a, cases, rows):
            print(describe(row), flush=True)
            if a.json and "time_ratio" in row:
                with a.json.open("a") as f:
                    f.write(json.dumps(row) + "\n")
    if a.table:
        import table

        table.write(a.table, read(a.json), [c.key for c in zoo.cases("all")])
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


def timed(a, cases, rows):
    """Times the cases that are exact, and yields their rows."""
    known = {(r["model"], r["how"]): r for r in rows}
    todo = [c for c in cases if c.timed and c.in_pytorch and c.key in known and known[c.key]["exact"] and "time_ratio" not in known[c.key]]
    for result in run([Job(case, compare.measure, (case, a.grindstone), (a.time, a.cache), a.timeout) for case in todo], 1):
        row = known[result["model"], result["how"]]
        yield row | {k: v for k, v in result.items() if k in ("time_ratio", "seconds_grindstone", "seconds_pytorch")}


def run(jobs, together):
    """Yields the rows of the jobs as they end, so many at a time. Each has a process of its own, so that what it leaves in memory, or crashes, is gone
    with it: a fork, since to import PyTorch takes seconds."""
    os.environ["OMP_NUM_THREADS"] = "2" if together == 1 else "1"
    waiting, held, running = list(jobs), [], []
    try:
        while waiting or running:
            while waiting and len(running) < together:
                running.append(waiting.pop(0))
                running[-1].start()
            time.sleep(0.2)
            for job in [j for j in running if j.over()]:
                running.remove(job)
                row = job.row()
                if row is None:
                    held.append(job)
                else:
                    waiting, held = held + waiting, []
                    yield row
    finally:
        for job in running:
            job.kill()


class Job:
    """A case at work in a process group of its own: do(*before, folder, *behind) makes its row."""

    def __init__(self, case, do, before, behind, limit):
        self.case, self.do, self.before, self.behind, self.limit = case, do, before, behind, limit

    def start(self):
        self.begun, self.folder = time.monotonic(), tempfile.TemporaryDirectory()
        self.process = multiprocessing.get_context("fork").Process(target=self.work)
        self.process.start()

    def work(self):
        """In the fork: leaves the row in a file."""
        os.setpgid(0, 0)
        folder = self.folder.name
        errors = os.open(f"{folder}/stderr", os.O_CREAT | os.O_WRONLY)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        row = self.do(*self.before, folder, *self.behind)
        result = pathlib.Path(folder, "row")
        result.write_text(json.dumps(row))
        result.rename(f"{folder}/row.json")

    def over(self):
        return not self.process.is_alive() or time.monotonic() - self.begun > self.limit

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.folder.cleanup()

    def row(self):
        """The row of the table; None where another large model was at work."""
        late = self.process.is_alive()
        result, errors = (pathlib.Path(self.folder.name, name) for name in ("row.json", "stderr"))
        row = compare.blank(self.case)
        if late:
            row |= {"stage": "time", "reason": f"took longer than {self.limit} s"}
        elif result.exists():
            row = json.loads(result.read_text())
        else:
            self.process.join()
            lines = errors.read_text().strip().splitlines() if errors.exists() else []
            row |= {"stage": "error", "reason": lines[-1][:300] if lines and self.process.exitcode > 0 else f"exit status {self.process.exitcode}"}
        later = self.process.exitcode == compare.LATER
        self.kill()
        return None if later else row


def describe(row):
    what = f"{row['model']} ({row['how']})"
    if row["exact"]:
        ratio = f", {row['time_ratio']} of PyTorch's time" if "time_ratio" in row else ""
        theirs = f", PyTorch's {row['float32_pytorch']:.1e}" if "float32_pytorch" in row else ""
        return f"{what}: exact to {row['error']:.1e} (float32 {row['float32']:.1e}{theirs}){ratio}, {row['seconds']} s"
    return f"{what}: {row['stage']}: {row['reason']}"


if __name__ == "__main__":
    sys.exit(main())
