#!/usr/bin/env bash
# Real programs through `trunkline forward`, by each protocol. Run by `make programs`, as root: sshd
# and PostgreSQL are started for it, on loopback and in a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${BIN:-.venv/bin} base=${PORT:-25100}
dir=$(mktemp -d /tmp/programs.XXXXXX); chmod 755 "$dir"
pids=()
cleanup() { kill "${pids[@]}" 2>/dev/null || true; sleep 1; rm -rf "$dir"; }
trap cleanup EXIT
start() { "$@" >>"$dir/log" 2>&1 & pids+=($!); }
fail() { echo "FAILED: $*"; tail -5 "$dir/log"; exit 1; }

head -c 20000000 /dev/urandom > "$dir/answer"
head -c 268435456 /dev/urandom > "$dir/file"
ssh-keygen -q -t ed25519 -N "" -f "$dir/host"; ssh-keygen -q -t ed25519 -N "" -f "$dir/id"
install -m 600 "$dir/id.pub" "$dir/keys"; mkdir -p /run/sshd
start /usr/sbin/sshd -D -f /dev/null -p $((base + 901)) -o ListenAddress=127.0.0.1 -h "$dir/host" \
  -o AuthorizedKeysFile="$dir/keys" -o StrictModes=no -o PidFile=none -o UsePAM=no \
  -o PermitRootLogin=yes -o "Subsystem sftp internal-sftp"
start redis-server --port $((base + 902)) --bind 127.0.0.1 --save "" --dir "$dir"
start "$bin/python" -m tests.programs.peer serve $((base + 903))
start "$bin/python" -m tests.programs.peer answer $((base + 904)) "$dir/answer"
pg=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
install -d -o postgres "$dir/pg"
su postgres -c "$pg/initdb -D $dir/pg -A trust" >>"$dir/log" 2>&1
start su postgres -c "exec $pg/postgres -D $dir/pg -p $((base + 905)) -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir/pg"
start "$bin/trunkline" compat relay "$base"
sleep 4

for protocol in multiplex event pool; do
  for server in 901:ssh 902:redis 903:ws 904:nc 905:sql; do
    "$bin/trunkline" forward --to "127.0.0.1:$base" --local "127.0.0.1:$((base + ${server%:*}))" \
      --protocol $protocol --log-level ERROR > "$dir/${server#*:}" 2>>"$dir/log" & pids+=($!)
  done
  for name in ssh redis ws nc sql; do
    for _ in $(seq 100); do [ -s "$dir/$name" ] && break; sleep 0.2; done
    declare "$name=$(sed 's/.*://' "$dir/$name")"
  done
  options=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i "$dir/id")
  if [ $protocol != pool ]; then  # a pool's user is seen by its first byte, and sshd speaks first
    timeout 120 scp "${options[@]}" -P "$ssh" "$dir/file" "root@127.0.0.1:$dir/copy"
    cmp "$dir/file" "$dir/copy" || fail "$protocol scp"
    [ "$(timeout 20 ssh "${options[@]}" -p "$ssh" root@127.0.0.1 echo hello)" = hello ] || fail "$protocol ssh"
  fi
  [ "$(redis-cli -p "$redis" ping)" = PONG ] || fail "$protocol redis"
  timeout 120 redis-benchmark -p "$redis" -P 16 -n 100000 -c 20 -t set,get -q | tr '\r' '\n' | grep "per second"
  timeout 60 "$bin/python" -m tests.programs.peer talk "$ws" || fail "$protocol websocket"
  printf request | timeout 60 nc -N 127.0.0.1 "$nc" | cmp - "$dir/answer" || fail "$protocol nc -N"
  export PGHOST=127.0.0.1 PGPORT=$sql PGUSER=postgres
  psql -q -c "drop table if exists t; create table t(a int, b text)" postgres 2>/dev/null
  psql -q -c "copy (select g, md5(g::text) from generate_series(1, 300000) g) to stdout" postgres > "$dir/rows"
  psql -q -c "\\copy t from $dir/rows" postgres
  [ "$(psql -tA -c "select count(*) from t" postgres)" = 300000 ] || fail "$protocol COPY"
  echo "$protocol: all there"
  for name in ssh redis ws nc sql; do : > "$dir/$name"; done
done
