#!/bin/sh
# Installs the appliance from the unpacked bundle that this file lies in. Needs Python, and no network.
#   sh install.sh [--prefix FOLDER]        PYTHON=/usr/bin/python3.12 sh install.sh
set -eu
case ${1:-} in -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;; esac
case $#,${1:-},${2:-} in
  0,,) ;;
  2,--prefix,?* | 1,--prefix=?*,) ;;
  *) echo "install: \"$*\" is not understood; type: sh $0 --prefix FOLDER, or just: sh $0" >&2; exit 2 ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
die() { echo "install: $*" >&2; exit 1; }

all() { for name in ${PYTHON:+"$PYTHON"} python3 python3.15 python3.14 python3.13 python3.12 python3.11; do command -v "$name" || :; done; }
# The first Python for which this expression holds.
python_where() {
  all | while read -r one; do
    if "$one" -I -c "import sys, json; raise SystemExit(not ($1))" "$here/manifest.json" >/dev/null 2>&1; then echo "$one"; break; fi
  done
}

[ -z "${PYTHON:-}" ] || command -v "$PYTHON" >/dev/null || die "there is no $PYTHON; name the Python to use, or leave PYTHON out"
python=$(python_where 'sys.version_info >= (3, 11)')
[ -n "$python" ] || die "no Python 3.11 or newer was found on the PATH; install one or name it: PYTHON=/path/to/python3 sh $0"

# Before anything of the bundle runs, every byte of it must be the one that was packed.
"$python" -I - "$here" <<'CHECK'
import hashlib, json, os, sys

def sorry(sentence):
    sys.exit(f"install: {sentence}; unpack the bundle again, and if that does not help, copy it again")

def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

os.chdir(sys.argv[1])
try:
    with open("manifest.sha256") as file:
        whole = file.read() == f"{sha256('manifest.json')}  manifest.json\n"
    if not whole:
        sorry("manifest.json is not what was packed")
    with open("manifest.json", "rb") as file:
        files = {row["path"]: row for row in json.load(file)["files"]}
    total = sum(row["bytes"] for row in files.values())
    print(f"Checking {len(files)} files, {total / 1e6:,.0f} MB ...", flush=True)
    for path, row in files.items():
        if os.path.getsize(path) != row["bytes"] or sha256(path) != row["sha256"]:
            sorry(f"{path} is not what was packed")
    there = {os.path.relpath(os.path.join(at, name), ".") for at, _, names in os.walk(".") for name in names}
    if more := sorted(there - set(files) - {"manifest.json", "manifest.sha256"}):
        sorry(f"{more[0]} does not belong to this bundle")
except OSError as error:
    sorry(f"{error.filename} cannot be read ({error.strerror})")
CHECK

wanted='"%d.%d" % sys.version_info[:2] in json.load(open(sys.argv[1]))["pythons"]'
chosen=$(python_where "$wanted")
wheel=$(echo "$here"/wheels/fallback_appliance-*.whl)
exec "${chosen:-$python}" -I -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from appliance.store.install import main; sys.exit(main())' \
  "$wheel" "$here" "$@"
