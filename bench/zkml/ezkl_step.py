#!/usr/bin/env python3
"""One step of ezkl in a process of its own: ezkl_step.py FOLDER STEP.

FOLDER holds model.onnx and data.json; everything else is written there. Weights are constants of the circuit, which is
the cheapest way in which ezkl binds a proof to a model; inputs and outputs are public. The reference string is made
locally, which is insecure and only good for timing.
"""

import asyncio
import json
import os
import pathlib
import sys

import ezkl


async def main(folder, step):
    at = lambda name: str(folder / name)  # noqa: E731
    result = None
    if step == "settings":
        arguments = ezkl.PyRunArgs()
        arguments.input_visibility = arguments.output_visibility = "public"
        arguments.param_visibility = "fixed"
        result = ezkl.gen_settings(at("model.onnx"), at("settings.json"), py_run_args=arguments)
    elif step == "calibrate":
        rows = int(os.environ.get("MAX_LOGROWS", "20"))
        result = ezkl.calibrate_settings(
            at("data.json"), at("model.onnx"), at("settings.json"), "resources", max_logrows=rows
        )
    elif step == "compile":
        result = ezkl.compile_circuit(at("model.onnx"), at("model.ezkl"), at("settings.json"))
    elif step == "srs":
        rows = json.loads((folder / "settings.json").read_text())["run_args"]["logrows"]
        ezkl.gen_srs(at("srs"), rows)
    elif step == "setup":
        result = ezkl.setup(at("model.ezkl"), at("vk"), at("pk"), at("srs"))
    elif step == "witness":
        result = ezkl.gen_witness(at("data.json"), at("model.ezkl"), at("witness.json"), at("vk"), at("srs"))
    elif step == "prove":
        result = ezkl.prove(at("witness.json"), at("model.ezkl"), at("pk"), at("proof.json"), at("srs"))
    elif step == "verify":
        result = ezkl.verify(at("proof.json"), at("settings.json"), at("vk"), at("srs"), False)
    if hasattr(result, "__await__"):
        result = await result
    if step == "verify" and not result:
        raise SystemExit("ezkl refuses its own proof")


asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
