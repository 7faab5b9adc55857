"""Builds llama.cpp's own programs from the sources that the package llama-cpp-python has, and says where they are.

Nothing of them is changed. The sources come from PyPI, as the one archive with this hash; the programs stay in the virtual
environment, so that they are built once.
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"

home = pathlib.Path(sys.prefix) / f"llama.cpp-{VERSION}"
ready = home / "ready"
if not ready.exists():
    with tempfile.TemporaryDirectory(dir=sys.prefix) as folder:
        folder = pathlib.Path(folder)
        requirement = folder / "sources.txt"
        requirement.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
        subprocess.run([*pip, "-d", folder, "-r", requirement], check=True)
        archive = folder / f"llama_cpp_python-{VERSION}.tar.gz"
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
        with tarfile.open(archive) as sources:
            sources.extractall(folder, filter="data")
        sources = folder / f"llama_cpp_python-{VERSION}/vendor/llama.cpp"
        options = ["BUILD_SHARED_LIBS=OFF", "CMAKE_BUILD_TYPE=Release", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF"]
        options += ["LLAMA_OPENSSL=OFF", "GGML_CCACHE=OFF", "LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF"]
        tools = {**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
        jobs = str(min(2, os.cpu_count() or 1))
        build = folder / "build"
        cmake = ["cmake", "-G", "Ninja", "-S", sources, "-B", build, *(f"-D{option}" for option in options)]
        subprocess.run(cmake, check=True, env=tools, stdout=subprocess.DEVNULL)
        subprocess.run(["ninja", "-j", jobs, "-C", build, "llama-cli"], check=True, env=tools, stdout=subprocess.DEVNULL)
        home.mkdir(exist_ok=True)
        os.replace(build / "bin/llama-cli", home / "llama-cli")
        ready.touch()
print(home / "llama-cli")
