#!/usr/bin/env bash
# Checks, runs and measures the paper's grid on a GPU that can be used only for some minutes at a time.
#
#     benchmarks/gpu_session.sh OUT --data_dir cifar10-jpeg.tar.xz       # call it again until it says "all done"
#     benchmarks/gpu_session.sh OUT                                      # where CIFAR-10 can be downloaded
#
# A call continues the last call that had the same code and flags on this machine. It runs for at most LIMIT seconds and
# then copies all results so far to OUT. The flags after OUT are passed to reproduce.py. The pieces of work, in order:
#     check    benchmarks/gpu_check.py: does everything that the tables rely on hold on this GPU?
#     paper    reproduce.py --preset paper
#     bench    benchmarks/bench.py
# The exit code is 0 if all pieces were done or cut off, 1 if one failed (the others still run), and 2 for wrong usage.
# OUT holds at most eight files of at most 16 MiB: log, summary, tables, benchmarks, and signals in up to four archives.
# Settings, from the environment:
#     LIMIT=520          seconds that a call may take; copying the results takes some 15 seconds more
#     ROOT=<checkout>    folder that keeps data/, results*/ and the session's state between calls. Use a folder outside
#                        the checkout if every call copies the checkout to the GPU's machine anew
#     PYTHON=python3     the Python interpreter
#     PRESET=paper  CHECK_FLAGS=  BENCH_FLAGS=     for trying this script out without a GPU
set -uo pipefail

usage() { echo "gpu_session.sh: error: $1 (usage: gpu_session.sh OUT [flags of reproduce.py])" >&2; exit 2; }

[[ $# -ge 1 && $1 != -* ]] || usage "the folder for the results is missing"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1" 2>/dev/null && out=$(cd "$1" && pwd) || usage "$1 cannot be made"
shift
limit=${LIMIT:-520} python=${PYTHON:-python3} preset=${PRESET:-paper}
[[ $limit =~ ^[1-9][0-9]*$ ]] || usage "LIMIT is $limit, not a number of seconds"
command -v "$python" >/dev/null || usage "PYTHON is $python, which is not there"
mkdir -p "${ROOT:-$here}" && root=$(cd "${ROOT:-$here}" && pwd) || usage "ROOT is $ROOT, which cannot be made"
failed=0
archive_mib=15 # a file of OUT may have 16 MiB
least=$((limit < 40 ? limit / 2 : 20)) # seconds that must be left for a piece to be started

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

# pack ARCHIVE FILE...: write an archive of the files that exist, with paths relative to ROOT; no archive if there are
# none. The table of single points is left out: it is large and can be computed from the signals.
pack() {
    local archive=$1 file existing=()
    shift
    for file in "$@"; do
        [[ -e $file && $file != */points.csv ]] && existing+=("${file#"$root"/}")
    done
    ((${#existing[@]})) && tar -C "$root" -czf "$out/$archive" "${existing[@]}"
}

# Pack the signals of all variants into up to four archives, as many into each as fit.
pack_signals() {
    local folder file size sum=0 number=1 group=()
    for folder in "${variants[@]}"; do
        file=$folder/signals.npz
        [[ -e $file ]] || continue
        size=$(stat -c %s "$file")
        if ((sum + size > archive_mib << 20)); then
            ((${#group[@]})) && pack "signals_$number.tar.gz" "${group[@]}" && number=$((number + 1))
            sum=0 group=()
        fi
        if ((number > 4 || size > archive_mib << 20)); then
            say "left out: $file"
            continue
        fi
        group+=("$file") sum=$((sum + size))
    done
    ((${#group[@]})) && pack "signals_$number.tar.gz" "${group[@]}"
}

# Copy all results so far to OUT; called however the script ends.
copy_results() {
    local rest=("${variants[@]:1}")
    rm -f "$out"/{log.txt,summary.md,tables.tar.gz,benchmarks.tar.gz} "$out"/signals_[1-4].tar.gz
    pack tables.tar.gz "${variants[0]}"/*.{md,csv,json,png} "${rest[@]/%//NR.csv}" "${rest[@]/%//NR.json}" \
        "${rest[@]/%//SR.csv}" "${rest[@]/%//SR.json}" "$state"/*.seconds
    pack_signals
    pack benchmarks.tar.gz "$root"/results/benchmarks/*.{csv,md}
    cp "${variants[0]}/summary.md" "$out/" 2>/dev/null
    tail -c 4000000 "$log" >"$out/log.txt"
}
data=(--dataset_name cifar10)
[[ $preset == smoke ]] && data=(--dataset_name digits)
flags=(--preset "$preset" "${data[@]}" --root "$root" "$@")
version=$(git -C "$here" describe --always --dirty 2>/dev/null) # calls of one session have the same version and flags
session=$(printf '%s\n' "$version" "${flags[@]}" "${CHECK_FLAGS:-}" "${BENCH_FLAGS:-}" | sha1sum | cut -c1-12)
state=$root/.gpu_session/$session
log=$state/log.txt
mkdir -p "$state"
code='import sys, reproduce; from compleak.runs.places import variant_dir; from compleak.runs.variants import ORIGINAL
plan = reproduce.parse(sys.argv[1:]).plan
for variant in (ORIGINAL, *plan.variants): print(variant_dir(plan.run.root, plan.name, variant))'
folders=$(PYTHONPATH=$here "$python" -c "$code" "${flags[@]}") || exit 2
mapfile -t variants <<<"$folders" # the original's first
trap copy_results EXIT
trap 'exit 130' INT TERM

say "== $(date -u +%FT%TZ) ${flags[*]}"
read -ra check_flags <<<"${CHECK_FLAGS:-}"
read -ra bench_flags <<<"${BENCH_FLAGS:-}"
run_piece check "$python" "$here/benchmarks/gpu_check.py" "${check_flags[@]}"
run_piece paper "$python" "$here/reproduce.py" "${flags[@]}"
run_piece bench "$python" "$here/benchmarks/bench.py" --resume --out "$root/results/benchmarks" "${bench_flags[@]}"
[[ -e $state/check.done && -e $state/paper.done && -e $state/bench.done ]] && say "all done"
exit $failed
