#!/usr/bin/env bash
# Runs Transformers' own common tests on the model classes and the processor, and on its LLaVA as the control.
#
#   run.sh [arguments of pytest]
#
# PYTHON is the interpreter that has `litelvlm` and its "dev" extra (default: python). The tests come with the source
# distribution of the Transformers that it imports. What no source distribution holds is replaced by empty stubs: the
# tests of `generate` and of exporters.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$("$python" -c 'import transformers; print(transformers.__version__)')
"$python" -m pip download --quiet --no-binary transformers --no-deps --dest "$work" "transformers==$version"
mkdir -p "$work"/tests/{generation,exporters,utils} "$work/utils"
tar xzf "$work/transformers-$version.tar.gz" -C "$work" --strip-components=1 --wildcards '*/tests/test_*_common.py'
touch "$work"/tests/{,generation/,exporters/,utils/}__init__.py
echo 'class GenerationTesterMixin: pass' >"$work/tests/generation/test_utils.py"
echo 'class ExportTesterMixin: pass' >"$work/tests/exporters/test_export.py"
echo 'config_common_kwargs = {}' >"$work/tests/utils/test_configuration_utils.py"
# Images of the Hub become one of our own
"$python" -c 'import PIL.Image, sys; PIL.Image.new("RGB", (40, 30), "red").save(sys.argv[1])' "$work/image.png"
echo "def url_to_local_path(*args): return '$work/image.png'" >"$work/utils/fetch_hub_objects_for_ci.py"
echo '[pytest]' >"$work/pytest.ini"
cp "$here"/*.py "$work/tests/"

cd "$work"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH="$work:$work/utils:${PYTHONPATH:-}"
"$python" -m pytest -q -p no:cacheprovider -p no:warnings --tb=short tests/test_models.py tests/test_processor.py "$@"
