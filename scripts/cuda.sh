#!/usr/bin/env bash
# Puts what ONNX Runtime's CUDA provider needs of CUDA 13 and cuDNN 9 into a folder (2 GB), from NVIDIA's Python packages, for a
# machine that has a driver (release 580 or newer) and nothing more. Linux x86-64.
#
#   scripts/cuda.sh DIR      and then LD_LIBRARY_PATH=DIR
set -euo pipefail

[[ $# == 1 && $1 != -* ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || { echo "cuda.sh: packages are pinned for Linux x86-64 only" >&2; exit 1; }
mkdir -p "$1"
work=$(mktemp -d "$1/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT

cat > "$work/requirements.txt" <<'END'
nvidia-cublas==13.0.2.14        --hash=sha256:0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c
nvidia-cuda-nvrtc==13.0.88      --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
nvidia-cuda-runtime==13.0.96    --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cudnn-cu13==9.28.1.4     --hash=sha256:a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec
nvidia-cufft==12.0.0.61         --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
nvidia-curand==10.4.0.35        --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
nvidia-nvjitlink==13.0.88       --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b
END
python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
	--implementation cp --python-version 3.12 --platform manylinux_2_27_x86_64 --platform manylinux_2_12_x86_64 \
	--platform manylinux_2_17_x86_64 --dest "$work" -r "$work/requirements.txt"
python3 - "$1" "$work"/*.whl <<'PYTHON'
import pathlib, shutil, sys, zipfile

for path in sys.argv[2:]:
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            base = pathlib.PurePosixPath(name).name
            # Left out: the drop-in BLAS and FFTW, and nvrtc's second build.
            if ".so" in base and ".alt." not in base and not base.startswith(("libnvblas", "libcufftw")):
                with wheel.open(name) as source, open(pathlib.Path(sys.argv[1], base), "wb") as target:
                    shutil.copyfileobj(source, target)
PYTHON
