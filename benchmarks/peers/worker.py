"""A process that runs one engine: `python worker.py ENGINE`, with an environment of its own.

It speaks JSON lines. A first line {"model", "input", "output", "threads"} loads a model, runs it
once on the array in one file, or on the arrays in order, and writes what comes out first to the
other; each line {"seconds"} after that is answered with the times of the calls that fit in, in
milliseconds by the wall and of the process's CPU. This file must run in any environment that an
engine wants: the standard library, NumPy and the engine.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np


def onnxruntime(model, given, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {entry.name: given[i] for i, entry in enumerate(session.get_inputs())}
    return lambda: session.run(None, feed)[0], onnxruntime.__version__


def openvino(model, given, threads):
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    for i, x in enumerate(given):
        request.set_input_tensor(i, openvino.Tensor(x))  # a copy, as x may be gone by then

    def call():
        request.infer()
        return request.get_output_tensor(0).data

    return call, openvino.__version__.split("-")[0]


def deepsparse(model, given, threads):
    import deepsparse

    engine = deepsparse.compile_model(model, batch_size=len(given[0]), num_cores=threads)
    return lambda: engine.run(given)[0], deepsparse.__version__


def mnn(model, given, threads):
    import MNN

    (x,) = given
    converted = model + ".mnn"
    tool = os.path.join(os.path.dirname(sys.executable), "mnnconvert")
    command = [tool, "-f", "ONNX", "--modelFile", model, "--MNNModel", converted]
    subprocess.run(
        [*command, "--bizCode", "MNN", "--detectSparseSpeedUp"], check=True, stdout=sys.stderr
    )
    net = MNN.Interpreter(converted)
    session = net.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
    entry = net.getSessionInput(session)
    tensor = MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, MNN.Tensor_DimensionType_Caffe)

    def call():
        entry.copyFrom(tensor)
        net.runSession(session)
        out = net.getSessionOutput(session)
        host = np.empty(out.getShape(), np.float32)
        kept = MNN.Tensor(
            out.getShape(), MNN.Halide_Type_Float, host, MNN.Tensor_DimensionType_Caffe
        )
        out.copyToHostTensor(kept)
        return np.array(kept.getNumpyData())

    return call, MNN.version()


def litert(model, given, threads):
    from ai_edge_litert import __version__
    from ai_edge_litert.interpreter import Interpreter

    (x,) = given
    net = Interpreter(_as_tflite(model), num_threads=threads)
    net.allocate_tensors()
    entry, out = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]

    def call():
        net.set_tensor(entry, x)
        net.invoke()
        return net.get_tensor(out)

    return call, __version__


def _as_tflite(model):
    """The file that litert's converter makes of StableHLO."""
    from litert_converter import converter_api_ext as api
    from litert_converter.mlir import ir, passmanager
    from litert_converter.mlir.dialects import stablehlo

    context = ir.Context()
    api.prepare_mlir_context(context)
    with context, open(model, "rb") as file:
        module = stablehlo.deserialize_portable_artifact(context, file.read())
        api.run_convert_to_tfl_passes(module, passmanager.PassManager(), api.ConvertToTFLConfig())
        api.export_flatbuffer_to_file(module.operation, model + ".tflite")
    return model + ".tflite"


ENGINES = {e.__name__: e for e in (onnxruntime, openvino, deepsparse, mnn, litert)}


def main():
    answers = os.fdopen(os.dup(1), "w")  # engines print what they like to the other
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    loaded = np.load(order["input"])
    arrays = [loaded] if isinstance(loaded, np.ndarray) else loaded.values()
    given = [np.ascontiguousarray(x) for x in arrays]
    call, version = ENGINES[sys.argv[1]](order["model"], given, order["threads"])
    np.save(order["output"], call())
    serve(call, answers, {"version": version})


def serve(call, answers, first):
    """Answer with `first`, then each order with the times of the calls that fit in its seconds."""
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        end = time.perf_counter() + json.loads(line)["seconds"]
        times, cpu = [], []
        call()
        while len(times) < 3 or time.perf_counter() < end:
            start, cpu_start = time.perf_counter(), time.process_time()
            call()
            times.append(1e3 * (time.perf_counter() - start))
            cpu.append(1e3 * (time.process_time() - cpu_start))
        print(json.dumps({"times_ms": times, "cpu_ms": cpu}), file=answers, flush=True)


if __name__ == "__main__":
    main()
