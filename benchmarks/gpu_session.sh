#!/usr/bin/env bash
# Checks, runs and measures the paper's grid on a GPU that is there only for minutes at a time.
#
#     benchmarks/gpu_session.sh OUT --data_dir cifar10-jpeg.tar.xz       # again and again, until it says "all done"
#     benchmarks/gpu_session.sh OUT                                      # where CIFAR-10 can be downloaded
#
# Every call goes on where the last one with the same code and flags stopped on this machine, for at most LIMIT seconds,
# and copies what there is to OUT. What follows OUT is given to reproduce.py. The pieces, in order:
#     check    benchmarks/gpu_check.py: same bits twice and after a stop, each compression's property, CPU agreement
#     paper    reproduce.py --preset paper
#     bench    benchmarks/bench.py
# Exit code 0 where the pieces were done or cut off, 1 where one failed (the others are run all the same), 2 for misuse.
# OUT holds at most eight files of at most 16 MiB: log, summary, tables, benchmarks, and signals in up to four archives.
# Settings, from the environment:
#     LIMIT=520          seconds a call may take, the copying (some 15 seconds) not counted
#     ROOT=<checkout>    where data/, results*/ and the session's own state live between the calls: a folder elsewhere,
#                        where the checkout is copied to the GPU's machine anew for every call
#     PYTHON=python3     the interpreter
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
least=$((limit < 40 ? limit / 2 : 20)) # seconds: with less, no piece is begun

say() { echo "$*" | tee -a "$log"; }

left() { echo $((limit - SECONDS)); }

# piece NAME COMMAND...: run it in what is left of the time; remember that it is done, and how long it took in all
piece() {
    local name=$1 began=$SECONDS code
    shift
    if [[ -e $state/$name.done ]]; then
        say "$name: done before"
        return
    fi
    if [[ $name == check && -e $state/$name.failed ]]; then # it would fail again
        failed=1
        say "$name: FAILED before; to try again, rm $state/$name.failed"
        return
    fi
    if (($(left) < least)); then
        say "$name: waits for the next call"
        return
    fi
    timeout --foreground -s INT -k 20 "$(left)" "$@" 2>&1 | tee -i -a "$log"
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

# pack ARCHIVE FILE...: those that exist, named from the root on; nothing where there is none. The table of single points
# is left out: it is large, and follows from the signals.
pack() {
    local archive=$1 file found=()
    shift
    for file in "$@"; do
        [[ -e $file && $file != */points.csv ]] && found+=("${file#"$root"/}")
    done
    ((${#found[@]})) && tar -C "$root" -czf "$out/$archive" "${found[@]}"
}

# The signals of all variants, as many to an archive as fit, in up to four archives.
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

# Whatever there is by now; called on every way out.
copy() {
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
version=$(git -C "$here" describe --always --dirty 2>/dev/null) # what another call of the same session must agree on
session=$(printf '%s\n' "$version" "${flags[@]}" "${CHECK_FLAGS:-}" "${BENCH_FLAGS:-}" | sha1sum | cut -c1-12)
state=$root/.gpu_session/$session
log=$state/log.txt
mkdir -p "$state"
code='import sys, reproduce; from compleak.runs.places import variant_dir; from compleak.runs.variants import ORIGINAL
plan = reproduce.parse(sys.argv[1:]).plan
for variant in (ORIGINAL, *plan.variants): print(variant_dir(plan.run.root, plan.name, variant))'
folders=$(PYTHONPATH=$here "$python" -c "$code" "${flags[@]}") || exit 2
mapfile -t variants <<<"$folders" # the original's first
trap copy EXIT
trap 'exit 130' INT TERM

say "== $(date -u +%FT%TZ) ${flags[*]}"
read -ra check_flags <<<"${CHECK_FLAGS:-}"
read -ra bench_flags <<<"${BENCH_FLAGS:-}"
piece check "$python" "$here/benchmarks/gpu_check.py" "${check_flags[@]}"
piece paper "$python" "$here/reproduce.py" "${flags[@]}"
piece bench "$python" "$here/benchmarks/bench.py" --resume --out "$root/results/benchmarks" "${bench_flags[@]}"
[[ -e $state/check.done && -e $state/paper.done && -e $state/bench.done ]] && say "all done"
exit $failed
