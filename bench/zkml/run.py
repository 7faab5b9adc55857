#!/usr/bin/env python3
"""Measures `opg zk` beside ezkl: same ONNX file, same input, every step a fresh process, one run.

usage: run.py --opg target/release/opg --models DIR --out zkml.json [--ezkl NAME,..] [NAME ...]

CPU seconds are user and system time of the whole process and its threads (wait4), peak memory is its largest resident
set. Names after --ezkl are measured with both, the others with opg alone. Needs Python 3.11 or later with the packages
of requirements.txt.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime

HERE = pathlib.Path(__file__).parent
RUNS = 5


def measure(command, **environment):
    """Runs a process; wall and CPU seconds, peak memory in MiB, its standard output."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {err.read()[-800:].decode(errors='replace')}")
        text = out.read().decode()
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss_mib": usage.ru_maxrss / 1024}, text


def median(samples):
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def request(folder, name, model):
    """The stored input with the names and shapes of the model."""
    stored = json.loads((folder / f"{name}.input.json").read_text())
    if "input_data" not in stored:
        return stored
    out = {}
    for entry, flat in zip(model.graph.input, stored["input_data"]):
        shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        out[entry.name] = np.array(flat, dtype=np.float32).reshape(shape).tolist()
    return out


def with_opg(opg, onnx_file, inputs, work, profile):
    (work / "in.json").write_text(json.dumps(inputs))
    program, proof, output = work / "program", work / "proof", work / "out.json"
    row = {}
    row["compile"], _ = measure([opg, "zk", "compile", onnx_file, "-o", program, "--profile", profile, "--json"])
    row["setup"], text = measure([opg, "zk", "commit", program, "--json"])
    root = json.loads(text)["root"]
    prove = [opg, "zk", "prove", program, "--input", work / "in.json", "-o", proof, "--output", output, "--json"]
    row["prove"] = median([measure(prove)[0] for _ in range(RUNS)])
    inner = json.loads(measure(prove)[1])
    row["prove_in_process"] = {"wall": inner["prove_ms"] / 1000, "cpu": inner["cpu_ms"] / 1000}
    check = [opg, "zk", "verify", "--root", root, "--input", work / "in.json", "--output", output, proof, "--json"]
    row["verify"] = median([measure(check)[0] for _ in range(RUNS)])
    # Its own count: wait4 includes what the starting process had at the fork.
    row["prove"]["rss_mib"] = inner["peak_rss"] / 2**20
    row["proof_bytes"] = inner["proof_bytes"]
    row["output"] = inner["output"]
    return row


def with_ezkl(onnx_file, inputs, work):
    shutil.copy(onnx_file, work / "model.onnx")
    flat = [np.array(values).reshape(-1).tolist() for values in inputs.values()]
    (work / "data.json").write_text(json.dumps({"input_data": flat}))
    row = {}
    for step in ["settings", "calibrate", "compile", "srs", "setup", "witness", "prove", "verify"]:
        command = [sys.executable, HERE / "ezkl_step.py", work, step]
        samples = [measure(command, MAX_LOGROWS="17")[0] for _ in range(RUNS if step == "verify" else 1)]
        row[step] = median(samples)
    rescaled = json.loads((work / "witness.json").read_text()).get("pretty_elements", {}).get("rescaled_outputs")
    row["output"] = [float(value) for value in rescaled[0]] if rescaled else None
    row["proof_json_bytes"] = (work / "proof.json").stat().st_size
    return row


def plain(onnx_file, inputs):
    """CPU seconds of one float inference, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_file), options)
    types = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
    feed = {entry.name: np.array(inputs[entry.name], dtype=types[entry.type]) for entry in session.get_inputs()}
    session.run(None, feed)
    count, began = 20, time.process_time()
    for _ in range(count):
        result = session.run(None, feed)
    return (time.process_time() - began) / count, result[0]


def machine():
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "os": platform.platform()}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--opg", required=True, type=pathlib.Path)
    arguments.add_argument("--models", required=True, type=pathlib.Path)
    arguments.add_argument("--out", required=True, type=pathlib.Path)
    arguments.add_argument("--ezkl", default="")
    arguments.add_argument("names", nargs="*")
    args = arguments.parse_args()
    both = [name for name in args.ezkl.split(",") if name]
    opg = args.opg.resolve()
    version = subprocess.run([opg, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    result = {
        "name": "zkml",
        "command": "bench/zkml/run.py " + " ".join(["--ezkl", args.ezkl, *args.names]),
        "machine": machine(),
        "versions": {
            "opg": version,
            "commit": subprocess.run(
                ["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip(),
            **{name: importlib.metadata.version(name) for name in ["ezkl", "onnx", "onnxruntime", "numpy"]},
        },
        "models": {},
    }
    for name in both + args.names:
        onnx_file = args.models / f"{name}.onnx"
        inputs = request(args.models, name, onnx.load(onnx_file))
        row = {}
        row["float_inference_cpu"], expected = plain(onnx_file, inputs)
        # int16 is the profile whose error is no larger than that of ezkl's 13-bit scales.
        profiles = {"opg": "int8", "opg_int16": "int16"} if name in both else {"opg": "int8"}
        line = name
        for key, profile in profiles.items():
            with tempfile.TemporaryDirectory() as work:
                row[key] = with_opg(opg, onnx_file, inputs, pathlib.Path(work), profile)
            got = np.array(next(iter(row[key].pop("output").values())), dtype=np.float64).reshape(-1)
            row[key]["max_error"] = float(np.abs(got - expected.reshape(-1)).max())
            line += f", {profile}: prove {row[key]['prove']['cpu']:.3f} CPU-s, verify {row[key]['verify']['cpu'] * 1e3:.0f} CPU-ms"
        if name in both:
            with tempfile.TemporaryDirectory() as work:
                row["ezkl"] = with_ezkl(onnx_file, inputs, pathlib.Path(work))
            got = row["ezkl"].pop("output")
            if got is not None:
                row["ezkl"]["max_error"] = float(np.abs(np.array(got) - expected.reshape(-1)).max())
            setup = row["ezkl"]["srs"]["cpu"] + row["ezkl"]["setup"]["cpu"]
            for key in profiles:
                row[key]["ezkl_over_opg"] = {
                    "prove": row["ezkl"]["prove"]["cpu"] / row[key]["prove"]["cpu"],
                    "setup": setup / row[key]["setup"]["cpu"],
                    "verify": row["ezkl"]["verify"]["cpu"] / row[key]["verify"]["cpu"],
                    "memory": row["ezkl"]["prove"]["rss_mib"] / row[key]["prove"]["rss_mib"],
                }
                line += f"; ezkl over {key}: "
                line += ", ".join(f"{step} {value:.0f}" for step, value in row[key]["ezkl_over_opg"].items())
        print(line, flush=True)
        result["models"][name] = row
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
