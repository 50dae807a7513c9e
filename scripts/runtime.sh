#!/usr/bin/env bash
# Fetches the pinned ONNX Runtime library into the cache folder, where Grindstone looks for it.
#
#   scripts/runtime.sh [--cuda] [--pip | --npm] [DIR]
#
#   --cuda   the build with the CUDA provider (CUDA 13, cuDNN 9; Linux x86-64)
#   --pip    from the Python package only; default: that, else the Node package
#   --npm    from the Node package only (no CUDA)
#   DIR      where to put it; default: onnxruntime/<version>-<os>-<arch> in GRINDSTONE_CACHE or the user's cache folder
#
# Nothing is fetched when the library is there, or when ORT_LIBRARY names one. Downloads are compared with the checksums below.
set -euo pipefail

version=1.27.0 # sanitize/ort.Version

sha256_of() {
	case $1 in
	pip-linux-amd64) echo 7c65a7438632d55dfbc8a02ee60bd6cf7dd9d1ba05a43d4b851452f32338e194 ;;
	pip-linux-arm64) echo c6fddce0539a4898c7bef35b052ffd37935b2190e35488eab99ce91887743ea1 ;;
	pip-darwin-arm64) echo a14c2ce45312def86b77aea651f46565e45960cf5f0721bfdff449165086ab76 ;;
	pip-linux-amd64-cuda) echo b2b8d6afabf3c23c2c698639a16388816dc7298f388a9ddddf504b283990ea01 ;;
	npm-*-cuda) ;;
	npm-*) echo c3779c01c59832f8c03e2c392ac3af10bf08579f1822e8b1c63cc451edb302a2 ;;
	esac
}

fail() {
	echo "runtime.sh: $*" >&2
	exit 1
}

flavor="" sources="pip npm" dest=""
for arg; do
	case $arg in
	--cuda) flavor=-cuda ;;
	--pip) sources=pip ;;
	--npm) sources=npm ;;
	-*) fail "unknown option $arg; usage: runtime.sh [--cuda] [--pip | --npm] [DIR]" ;;
	*) dest=$arg ;;
	esac
done

if [[ -n ${ORT_LIBRARY:-} && -z $dest ]]; then
	[[ -e $ORT_LIBRARY ]] || fail "ORT_LIBRARY is set, but $ORT_LIBRARY does not exist"
	echo "ONNX Runtime: $ORT_LIBRARY (ORT_LIBRARY)"
	exit 0
fi

case $(uname -s)-$(uname -m) in
Linux-x86_64) platform=linux-amd64 node=linux/x64 tag=manylinux_2_27_x86_64 ;;
Linux-aarch64 | Linux-arm64) platform=linux-arm64 node=linux/arm64 tag=manylinux_2_27_aarch64 ;;
Darwin-arm64) platform=darwin-arm64 node=darwin/arm64 tag=macosx_14_0_arm64 ;;
*) fail "no package is pinned for $(uname -s) $(uname -m): build ONNX Runtime $version or find a build, and set ORT_LIBRARY to it" ;;
esac
library=libonnxruntime.so
[[ $platform == darwin-* ]] && library=libonnxruntime.dylib

if [[ -z $dest ]]; then
	user=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}
	[[ $platform == darwin-* ]] && user=$HOME/Library/Caches
	dest=${GRINDSTONE_CACHE:-$user/grindstone}/onnxruntime/$version-$platform$flavor
fi
if [[ -e $dest/$library ]]; then
	echo "ONNX Runtime: $dest/$library"
	exit 0
fi

# The library is unpacked beside its destination and moved there whole: nobody ever loads half of it.
mkdir -p "$(dirname "$dest")"
dest=$(cd "$(dirname "$dest")" && pwd)/$(basename "$dest")
work=$(mktemp -d "$(dirname "$dest")/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/unpacked"

check() { # FILE SOURCE
	local want got
	want=$(sha256_of "$2-$platform$flavor")
	if command -v sha256sum >/dev/null; then got=$(sha256sum "$1"); else got=$(shasum -a 256 "$1"); fi
	[[ ${got%% *} == "$want" ]] || fail "$(basename "$1") has SHA-256 ${got%% *}, but $want is pinned: refusing to use it"
}

from_pip() {
	local python
	for python in python3 python; do
		"$python" -m pip --version >/dev/null 2>&1 && break
		python=""
	done
	[[ -n $python ]] || { echo "runtime.sh: no Python with pip" >&2; return 1; }
	[[ -n $(sha256_of "pip-$platform$flavor") ]] || fail "no package with CUDA for $platform"
	local package=onnxruntime
	[[ -n $flavor ]] && package=onnxruntime-gpu
	# Any Python will do: the wheel is chosen by its tag, and only the C library is taken out of it.
	"$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --implementation cp \
		--python-version 3.12 --abi cp312 --platform "$tag" --dest "$work" "$package==$version" >&2 || return 1
	local wheel=("$work"/*.whl)
	check "${wheel[0]}" pip
	"$python" - "${wheel[0]}" "$work/unpacked" <<-'PYTHON'
		import pathlib, shutil, sys, zipfile
		with zipfile.ZipFile(sys.argv[1]) as wheel:
		    for name in wheel.namelist():
		        base = pathlib.PurePosixPath(name).name
		        wanted = base.startswith("libonnxruntime") and "tensorrt" not in base
		        if wanted or name in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
		            with wheel.open(name) as source, open(pathlib.Path(sys.argv[2], base), "wb") as target:
		                shutil.copyfileobj(source, target)
	PYTHON
}

from_npm() {
	[[ -z $flavor ]] || { echo "runtime.sh: the Node package has no CUDA provider" >&2; return 1; }
	command -v npm >/dev/null || { echo "runtime.sh: no npm" >&2; return 1; }
	(cd "$work" && npm pack --silent --cache "$work/npm" "onnxruntime-node@$version" >/dev/null) || return 1
	local archive=("$work"/*.tgz)
	check "${archive[0]}" npm
	tar -xzf "${archive[0]}" -C "$work" "package/bin/napi-v6/$node" || return 1
	mv "$work/package/bin/napi-v6/$node"/libonnxruntime* "$work/unpacked/"
}

for source in $sources; do
	if "from_$source"; then
		break
	fi
	source=""
done
[[ -n $source ]] || fail "could not fetch ONNX Runtime $version: pip or npm with access to its registry is needed; or set ORT_LIBRARY to a library you have"

# Whatever the package calls it (libonnxruntime.so.1, .so.1.27.0, .1.27.0.dylib), it gets the plain name.
cd "$work/unpacked"
if [[ ! -e $library ]]; then
	named=("${library%.*}".*)
	mv "${named[0]}" "$library"
fi
chmod -R u=rwX,go=rX "$work/unpacked"
if [[ -d $dest ]]; then
	others=$(find . -type f ! -name "$library")
	for file in $others $library; do mv "$file" "$dest/"; done
else
	mv "$work/unpacked" "$dest"
fi
echo "ONNX Runtime: $dest/$library (from $source)"
