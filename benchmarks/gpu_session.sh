#!/usr/bin/env bash
# Checks the code on a GPU that can be used only for some minutes at a time, makes and asks models there, and measures.
# The attacks on the answers need no GPU: they run at home.
#
#     benchmarks/gpu_session.sh OUT --preset half --dataset_name cifar10 --data_dir cifar10-jpeg.tar.xz --seeds 7 8 9
#
# A call continues the last call that had the same code and flags on this machine: call it until it says "all done". It
# runs for at most LIMIT seconds and then copies to OUT what no earlier call has copied. The flags after OUT are passed
# to reproduce.py (default: the paper's grid on CIFAR-10, downloaded). The pieces of work, in order:
#     check    benchmarks/gpu_check.py: does everything that the tables rely on hold on this GPU?
#     models   reproduce.py --no_attacks --keep signals (weights stay with --defences and --early_stopping)
#     bench    benchmarks/bench.py
# The exit code is 0 if all pieces were done or cut off, 1 if one failed (the others still run), and 2 for wrong usage.
# OUT holds at most eight files of at most 16 MiB: log, benchmarks, models.tar.gz (what meta.json says of each model,
# without weights) and up to four archives of answers. Take them away before the next call, which writes the next
# answers to the same names. At home, unpack all archives of all calls in one FOLDER and attack:
#     reproduce.py <the same flags> --root FOLDER
# Settings, from the environment:
#     LIMIT=520          seconds that a call may take; copying the results takes some 15 seconds more
#     JOBS=4             stages at once, of which each has a processor core and a share of the GPU
#     MPS=               1: start NVIDIA's MPS for this call, which lets the kernels of all stages run side by side. Then
#                        a job for each core but one pays
#     ROOT=<checkout>    folder that keeps data/, results*/ and the session's state between calls. Use a folder outside
#                        the checkout if every call copies the checkout to the GPU's machine anew
#     PYTHON=python3     the Python interpreter
#     CHECK_FLAGS=  BENCH_FLAGS=     for trying this script out without a GPU
set -uo pipefail

usage() { echo "gpu_session.sh: error: $1 (usage: gpu_session.sh OUT [flags of reproduce.py])" >&2; exit 2; }

[[ $# -ge 1 && $1 != -* ]] || usage "the folder for the results is missing"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1" 2>/dev/null && out=$(cd "$1" && pwd) || usage "$1 cannot be made"
shift
limit=${LIMIT:-520} python=${PYTHON:-python3} jobs=${JOBS:-4}
[[ $limit =~ ^[1-9][0-9]*$ ]] || usage "LIMIT is $limit, not a number of seconds"
command -v "$python" >/dev/null || usage "PYTHON is $python, which is not there"
[[ -z ${MPS:-} ]] || command -v nvidia-cuda-mps-control >/dev/null || usage "MPS needs nvidia-cuda-mps-control, which is not there"
mkdir -p "${ROOT:-$here}" && root=$(cd "${ROOT:-$here}" && pwd) || usage "ROOT is $ROOT, which cannot be made"
failed=0
archive_bytes=$((15 << 20)) # a file of OUT may have 16 MiB
least=$((limit < 40 ? limit / 2 : 20)) # seconds that must be left for a piece to be started
left=0 # answers that found no room in this call's archives

say() { echo "$*" | tee -a "$log"; }

seconds_left() { echo $((limit - SECONDS)); }

# run_piece NAME COMMAND...: run the command in the time that is left; note in files whether it is done and its seconds
run_piece() {
    local name=$1 began=$SECONDS code
    shift
    if [[ -e $state/$name.done ]]; then
        say "$name: done before"
        return
    fi
    if [[ $name == check && -e $state/$name.failed ]]; then # it would only fail again
        failed=1
        say "$name: FAILED before; to try again, rm $state/$name.failed"
        return
    fi
    if (($(seconds_left) < least)); then
        say "$name: waits for the next call"
        return
    fi
    timeout --foreground -s INT -k 20 "$(seconds_left)" "$@" 2>&1 | tee -i -a "$log"
    code=${PIPESTATUS[0]}
    echo $((SECONDS - began)) >>"$state/$name.seconds"
    case $code in
    0)
        touch "$state/$name.done"
        say "$name: done in $(($(paste -sd+ "$state/$name.seconds"))) s"
        ;;
    124 | 130 | 137) say "$name: cut off after $((SECONDS - began)) s; the next call goes on" ;;
    *)
        failed=1
        touch "$state/$name.failed"
        say "$name: FAILED with exit code $code"
        ;;
    esac
}

# pack_models: what meta.json, run.json and the like say of all models, as of models whose weights were dropped
pack_models() {
    cd "$root" || return
    local files=() copy
    mapfile -t files < <(find results* data -maxdepth 3 \
        \( -name run.json -o -name meta.json -o -name seconds.json -o -name tokenizer.json -o -name '*_index*.pkl' \) 2>/dev/null)
    ((${#files[@]})) || return
    copy=$(mktemp -d)
    cp --parents "${files[@]}" "$copy"
    find "$copy" -name meta.json -exec sed -i '1s/{/{"dropped": true,/' {} +
    (cd "$copy" && tar -czf "$out/models.tar.gz" *)
    rm -r "$copy"
}

# pack_answers: up to four archives of the answers that no earlier call has packed
pack_answers() {
    cd "$root" || return
    local file size sum=0 number=1 group=() fresh=()
    mapfile -t fresh < <(find results* -name answers.npz 2>/dev/null | sort | grep -vxFf "$state/packed")
    for file in "${fresh[@]}"; do
        size=$(($(stat -c %s "$file") + 2048))
        if ((sum + size > archive_bytes)) && ((${#group[@]})); then
            pack_group
        fi
        if ((number > 4 || size > archive_bytes)); then
            left=$((left + 1))
            continue
        fi
        group+=("$file") sum=$((sum + size))
    done
    ((${#group[@]})) && pack_group
    ((left)) && say "$left answers wait for the next call"
}

# pack_group: write the files of `group` to the next archive and remember them
pack_group() {
    tar -cf "$out/answers_$number.tar" "${group[@]}" && printf '%s\n' "${group[@]}" >>"$state/packed"
    number=$((number + 1)) sum=0 group=()
}

# Copy all results so far to OUT; called however the script ends.
copy_results() {
    rm -f "$out"/{log.txt,models.tar.gz,benchmarks.tar.gz} "$out"/answers_[1-4].tar
    pack_models
    pack_answers
    compgen -G "$root/results/benchmarks/*.csv" >/dev/null &&
        tar -C "$root" -czf "$out/benchmarks.tar.gz" results/benchmarks
    [[ -e $state/check.done && -e $state/models.done && -e $state/bench.done ]] && ((left == 0)) && say "all done"
    tail -c 4000000 "$log" >"$out/log.txt"
    [[ -z ${MPS:-} ]] || echo quit | nvidia-cuda-mps-control >/dev/null
}

flags=("$@")
[[ $# -gt 0 ]] || flags=(--preset paper --dataset_name cifar10)
flags+=(--root "$root" --no_attacks --jobs "$jobs")
if [[ " ${flags[*]} " != *" --defences "* && " ${flags[*]} " != *" --early_stopping "* ]]; then
    flags+=(--keep signals) # the runs of a comparison copy each other's weights
fi
version=$(git -C "$here" describe --always --dirty 2>/dev/null) # calls of one session have the same version and flags
session=$(printf '%s\n' "$version" "${flags[@]}" "${CHECK_FLAGS:-}" "${BENCH_FLAGS:-}" | sha1sum | cut -c1-12)
state=$root/.gpu_session/$session
log=$state/log.txt
mkdir -p "$state"
touch "$state/packed"
PYTHONPATH=$here "$python" -c 'import sys, reproduce; reproduce.parse(sys.argv[1:])' "${flags[@]}" || exit 2
trap copy_results EXIT
trap 'exit 130' INT TERM

say "== $(date -u +%FT%TZ) ${flags[*]}"
[[ -z ${MPS:-} ]] || nvidia-cuda-mps-control -d
read -ra check_flags <<<"${CHECK_FLAGS:-}"
read -ra bench_flags <<<"${BENCH_FLAGS:-}"
run_piece check "$python" "$here/benchmarks/gpu_check.py" "${check_flags[@]}"
run_piece models "$python" "$here/reproduce.py" "${flags[@]}"
run_piece bench "$python" "$here/benchmarks/bench.py" --resume --out "$root/results/benchmarks" "${bench_flags[@]}"
exit $failed
