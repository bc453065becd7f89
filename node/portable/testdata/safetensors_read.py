"""Reads the safetensors files named by the reference implementation, and has it
write them again. Prints a JSON list of {tensors: {name: {dtype, shape, bits}},
same}: the elements' bits in hexadecimal, and whether what it wrote is the same
file."""
import ctypes
import json
import sys

import safetensors

DTYPES = {"F64": "float64", "F32": "float32"}

files = []
for path in sys.argv[1:]:
    with open(path, "rb") as f:
        raw = f.read()
    length = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + length]).get("__metadata__")
    tensors, specs, kept = {}, {}, []
    for name, t in reversed(safetensors.deserialize(raw)):
        data = bytes(t["data"])
        tensors[name] = {"dtype": t["dtype"], "shape": t["shape"], "bits": data.hex()}
        buffer = ctypes.create_string_buffer(data, len(data))
        kept.append(buffer)
        specs[name] = safetensors.TensorSpec(
            dtype=DTYPES[t["dtype"]], shape=t["shape"], data_ptr=ctypes.addressof(buffer), data_len=len(data)
        )
    again = bytes(safetensors.serialize(specs, metadata=metadata))
    files.append({"tensors": tensors, "same": again == raw})
print(json.dumps(files))
