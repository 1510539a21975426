#!/usr/bin/env bash
# Build a pack of one commit, and a small JSON file that describes it. Both CI templates call this script; it runs in
# any shell, too:
#
#     AWARENESS_REPO=./repo AWARENESS_REV=main ci/build-pack.sh
#
# AWARENESS_REPO        the repository: with a work tree or bare, shallow or not. Default: .
# AWARENESS_REV         the commit. Default: GITHUB_SHA, else CI_COMMIT_SHA, else HEAD
# AWARENESS_OUT         the folder for NAME-COMMIT.awm and NAME-COMMIT.json. Default: awareness-pack
# AWARENESS_NAME        NAME. Default: that of the repository on GitHub or GitLab, else of its folder
# AWARENESS_SCOPE       globs of the paths to pack, from the top of the repository, one a line. Default: all
# AWARENESS_QUANT       how latents are stored, as in `awareness index --quant`
# AWARENESS_MODEL       a preset, a hub id, or the absolute path of a folder, as in `awareness index --model`
# AWARENESS_INDEX_DIR   the index. If it is kept, the next commit encodes only what changed
# AWARENESS_MODELS_DIR  the models, to be kept too
#
# The last line on stdout is the path of the pack. Exit codes are those of `awareness`.
#
# A commit may come from anybody. Nothing of it is run, and no name in it reaches a shell: `awareness` reads the commit
# from git's objects, without git. All commands run in an empty folder, so that neither Python nor the search for a model
# looks into the repository.
set -euo pipefail

fail() {
  printf 'error: %s\n  try: %s\n' "$1" "$2" >&2
  exit 2
}

for program in awareness python3; do
  command -v "$program" >/dev/null || fail "the command $program is not here" "install it, or put it on PATH"
done
case ${AWARENESS_REPO:=.} in -*) AWARENESS_REPO=./$AWARENESS_REPO ;; esac
[ -d "$AWARENESS_REPO" ] || fail "AWARENESS_REPO: $AWARENESS_REPO is not a folder" "AWARENESS_REPO=FOLDER, a clone"
repo=$(cd "$AWARENESS_REPO" && pwd -P)
rev=${AWARENESS_REV:-${GITHUB_SHA:-${CI_COMMIT_SHA:-HEAD}}}
name=${AWARENESS_NAME:-${GITHUB_REPOSITORY:-${CI_PROJECT_NAME:-$repo}}}
[ -z "${AWARENESS_QUANT:-}" ] || export AWARENESS_LATENTS_QUANT="$AWARENESS_QUANT"

work=$(mktemp -d)
staging=
github_token=
finish() {
  rm -rf "$work" ${staging:+"$staging"}
  [ -z "$github_token" ] || printf '::%s::\n' "$github_token"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# On GitHub a line that begins with `::` is a command to the runner, also if it is the name of a file in the commit.
if [ "${GITHUB_ACTIONS:-}" = true ]; then
  github_token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  printf '::stop-commands::%s\n' "$github_token"
fi

# What is kept between commits must not lie where a commit puts files, or a commit could bring an index of its own; and
# what is written must not go through a link of the commit. `-I`: Python imports nothing from the working folder.
python3 -I - "$repo" "${AWARENESS_OUT:-awareness-pack}" "$name" >"$work/places" <<'PYTHON' || exit 2
import os, re, sys

repo, out, name = sys.argv[1:]
top = repo
if not all(os.path.lexists(os.path.join(repo, part)) for part in ("HEAD", "objects", "refs")):  # else it is bare
    while not os.path.lexists(os.path.join(top, ".git")):
        if top == os.path.dirname(top):
            sys.exit(f"error: AWARENESS_REPO: {repo} is not in a git repository\n  try: AWARENESS_REPO=FOLDER, a clone")
        top = os.path.dirname(top)


def is_inside(path):
    return os.path.commonpath([os.path.realpath(path), top]) == top


def through_link(path):
    """Is a part of the path a link that lies in the repository?"""
    parents = [path]
    while parents[-1] != os.path.dirname(parents[-1]):
        parents.append(os.path.dirname(parents[-1]))
    return any(os.path.islink(part) and is_inside(os.path.dirname(part)) for part in parents)


kept = []
for variable in ("AWARENESS_INDEX_DIR", "AWARENESS_MODELS_DIR"):
    folder = os.environ.get(variable, "")
    full = os.path.abspath(os.path.expanduser(folder)) if folder else ""
    if full and (is_inside(full) or through_link(full)):
        sys.exit(f"error: {variable}: {folder} is in the repository, where a commit can put files\n  try: another folder")
    kept.append(full)
if through_link(os.path.abspath(out)):
    sys.exit(f"error: AWARENESS_OUT: {out} leads through a link of the repository\n  try: another folder")
os.makedirs(out, exist_ok=True)
base = name.rstrip("/").rpartition("/")[2].removesuffix(".git")
name = re.sub(r"[^A-Za-z0-9._-]+", "-", base)[:60].strip("-.") or "repository"
sys.stdout.write("".join(f"{value}\0" for value in (*kept, os.path.realpath(out), name)))
PYTHON
{
  IFS= read -r -d '' AWARENESS_INDEX_DIR
  IFS= read -r -d '' AWARENESS_MODELS_DIR
  IFS= read -r -d '' out
  IFS= read -r -d '' name
} <"$work/places"
export AWARENESS_INDEX_DIR AWARENESS_MODELS_DIR # absolute now, or empty, which is as if they were not set
mkdir "$work/empty"
cd "$work/empty"

scopes=()
while IFS= read -r pattern; do
  [ -z "${pattern%$'\r'}" ] || scopes+=("--scope=${pattern%$'\r'}")
done <<<"${AWARENESS_SCOPE:-}"

# The index comes first, because `pack` keeps what it encodes in the pack only. --all: a pack has all latents anyway.
awareness index "$repo" "--rev=$rev" --all ${scopes[@]+"${scopes[@]}"} --format=json >"$work/index.json"
staging=$(mktemp -d "$out/.new.XXXXXX")
awareness pack "$staging/pack.awm" "--repo=$repo" "--rev=$rev" --format=json >"$work/pack.json"

# A search with an index folder of its own opens the pack as a stranger does, and compares every byte with its checksum.
code=0
AWARENESS_INDEX_DIR="$work/check" awareness search main "--memory=$staging/pack.awm" --quiet >/dev/null \
  2>"$work/check.log" || code=$?
if [ "$code" -gt 1 ]; then # 1: the pack is sound, but has nothing about this word
  cat "$work/check.log" >&2
  exit "$code"
fi

# Only this commit stays in the index, which would grow with every push otherwise.
awareness status "--repo=$repo" --format=json --quiet >"$work/status.json"
python3 -I - "$work/status.json" "$work/pack.json" >"$work/others" <<'PYTHON'
import json, sys

status, pack = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
sys.stdout.writelines(f"{s['rev']}\n" for s in status["snapshots"] if s["rev"] and s["rev"] != pack["rev"])
PYTHON
drop=()
while IFS= read -r other; do
  drop+=("--drop=$other")
done <"$work/others"
awareness gc "--repo=$repo" ${drop[@]+"${drop[@]}"} --quiet >/dev/null

python3 -I - "$work/index.json" "$work/pack.json" "$staging" "$out" "$name" <<'PYTHON'
import hashlib, json, os, sys

index, pack = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
staging, out, name = sys.argv[3:]
sha256 = hashlib.sha256()
with open(os.path.join(staging, "pack.awm"), "rb") as file:
    while block := file.read(1 << 20):
        sha256.update(block)
name = f"{name}-{pack['rev'][:12]}"
encoded = index["encoded"] + index["pending"] + index["postponed"]  # pack made the last two
about = {"file": f"{name}.awm", "repository": pack["repository"], "commit": pack["rev"], "sha256": sha256.hexdigest()}
about |= {field: pack[field] for field in ("bytes", "files", "chunks", "tokens", "model", "quant")}
with open(os.path.join(staging, "pack.json"), "w", encoding="utf-8") as file:
    file.write(json.dumps({**about, "encoded": encoded}, indent=2) + "\n")
for ending in ("json", "awm"):  # replaces a link, too, instead of following it
    os.replace(os.path.join(staging, f"pack.{ending}"), os.path.join(out, f"{name}.{ending}"))
path = os.path.join(out, f"{name}.awm")

new = "no" if not encoded else "all" if encoded >= index["latents"] else f"{encoded} of {index['latents']}"
line = (
    f"commit {pack['rev']}: {pack['files']} files, {pack['chunks']} chunks, {pack['tokens']:,} tokens,"
    f" {pack['bytes'] / 2**20:.1f} MiB; {new} latents encoded now"
)
print(line, f"sha256 {about['sha256']}", path, sep="\n")
for variable, text in (
    ("GITHUB_OUTPUT", f"name={name}\npack={path}\nsha256={about['sha256']}\n"),
    ("GITHUB_STEP_SUMMARY", f"`{name}.awm`: {line}\n\n`sha256 {about['sha256']}`\n"),
):
    if file_name := os.environ.get(variable):
        with open(file_name, "a", encoding="utf-8") as file:
            file.write(text)
PYTHON
