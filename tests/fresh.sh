#!/usr/bin/env bash
# A machine on which nothing was installed: `make fresh`. A new clone in a path with a blank and an umlaut, a new
# environment, an empty home; after the installation no network (where that can be taken away), a checkout that cannot be
# written, no terminal. Both commands of the front page have to end well. First: which Pythons have all wheels.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
scratch="$(mktemp -d)"
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
python="${PYTHON:-python3}"
cd "$here"

for version in 3.12 3.13 3.14; do  # 3.11 is what is installed below
  lacking=""
  while IFS= read -r pin; do
    name="${pin%%==*}"
    known="$("$python" -m pip index versions "$name" --python-version "$version" --only-binary=:all: \
      --disable-pip-version-check 2> /dev/null | grep '^Available' || true)"
    case ", ${known#*: }," in *", ${pin##*==},"*) ;; *) lacking="$lacking $pin" ;; esac
  done < <(grep -oE '^[A-Za-z0-9_-]+==[^ ]+' requirements.txt)
  echo "Python $version: no wheel of:${lacking:- nothing}"
done

hub="$scratch/a hüb"
git clone --quiet "$here" "$hub"
export HOME="$scratch/home"
mkdir "$HOME"
"$python" -m venv "$scratch/venv"
bin="$scratch/venv/bin"
cd "$hub"
# Linux: the pinned torch first, as the front page says, from where this machine's pip finds a CPU build.
"$bin/pip" install --quiet torch==2.13.0
"$bin/pip" install --quiet -r requirements.txt
"$bin/python" -m common checkpoints

# Without a network and as a user who owns nothing else, where this user may arrange that.
alone=()
if unshare --net true 2> /dev/null; then
  alone=(unshare --net setpriv --reuid 65534 --regid 65534 --clear-groups)
  chmod 755 "$scratch"
  chown -R 65534 "$HOME" "$hub"
  echo "no network, user 65534"
fi
run() {  # file for what it says, command
  "${alone[@]}" "${@:2}" < /dev/null > "$1" 2>&1 || { tail -5 "$1"; exit 1; }
  tail -1 "$1"
}
run "$scratch/demo.txt" "$bin/python" mistral/mistral_summarization.py --demo

# From elsewhere, when the checkout cannot be written.
chown -R "$(id -u)" "$hub"
chmod -R a-w "$hub"
mkdir "$scratch/elsewhere"
if [ ${#alone[@]} -gt 0 ]; then chown 65534 "$scratch/elsewhere"; fi
cd "$scratch/elsewhere"
run "$scratch/elsewhere.txt" "$bin/python" "$hub/minilm/minilm_classification.py" --demo --output_dir "$PWD/run"
echo "done"
