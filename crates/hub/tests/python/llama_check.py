"""Downloads OWNER/NAME:TAG with llama.cpp's own functions: those that `-hf` calls, in the library of the package xllamacpp.

The package's Python interface does not reach them, so they are called as the C++ functions that they are. The layout below is
that of the pinned version; strings are those of the old C++ ABI, a pointer behind length, capacity and reference count.
"""
import ctypes
import hashlib
import os
import struct
import sys

import xllamacpp

library = ctypes.CDLL(os.path.join(os.path.dirname(xllamacpp.__file__), "xllamacpp.abi3.so"))
kept = []


def string(text):
    data = text.encode()
    buffer = ctypes.create_string_buffer(struct.pack("<QQii", len(data), len(data), 1000, 0) + data + b"\0")
    kept.append(buffer)
    return ctypes.addressof(buffer) + 24


def reference(text):
    pointer = ctypes.c_void_p(string(text))
    kept.append(pointer)
    return ctypes.byref(pointer)


def text(pointer):
    return ctypes.string_at(pointer, ctypes.c_uint64.from_address(pointer - 24).value).decode()


repository, token = sys.argv[1], sys.argv[2]
# common_params_model: path, url, hf_repo, …; common_download_opts: bearer_token, and zeros mean nothing asked for.
model = (ctypes.c_uint64 * 16)(*[string("") for _ in range(16)])
model[2] = string(repository)
options = (ctypes.c_uint64 * 64)()
options[0] = string(token)
plan = (ctypes.c_uint64 * 2048)()
get_plan = library["_Z27common_download_get_hf_planRK19common_params_modelRK20common_download_opts"]
get_plan.restype = ctypes.c_void_p
get_plan(ctypes.byref(plan), ctypes.byref(model), ctypes.byref(options))
# hf_file: path, url, local_path, final_path, oid, repo_id.
path, url, local = [text(pointer) for pointer in plan[:3]]
print("file", path, url)
download = library["_Z27common_download_file_singleRKSsS0_RK20common_download_optsb"]
download.restype = ctypes.c_int
status = download(reference(url), reference(local), ctypes.byref(options), ctypes.c_bool(True))
content = open(local, "rb").read()
print("status", status)
print("downloaded", len(content), hashlib.sha256(content).hexdigest())
sys.stdout.flush()
# The strings are ours: nobody destroys them.
os._exit(0)
