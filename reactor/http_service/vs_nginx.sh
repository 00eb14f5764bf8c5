#!/usr/bin/env bash
# http_service beside nginx: the same small file over the same number of
# connections, in short turns one after the other, in one run. Says how many
# requests each answers in a second, and how much of a core one costs it.
#
# Like is compared with like: neither keeps files open or in memory
# (open_file_cache is off by default), neither writes a log, both have one
# process with one thread that serves, on a core of its own; the client has
# another. nginx is asked twice: once it sends the file with sendfile, which is
# what it is praised for, and once with read and writev, which suits small ones.
#
#   reactor/http_service/vs_nginx.sh
#   ROUNDS=20 SECONDS_EACH=1 CONNECTIONS=50 BYTES=1024 reactor/http_service/vs_nginx.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

ROUNDS=${ROUNDS:-12}
SECONDS_EACH=${SECONDS_EACH:-2}
CONNECTIONS=${CONNECTIONS:-50}
BYTES=${BYTES:-1024}
target=${CARGO_TARGET_DIR:-target}

PATH=$PATH:/usr/sbin
missing=
for tool in nginx wrk curl taskset pgrep; do
    command -v "$tool" > /dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    echo "not installed:$missing; on Debian: apt-get install nginx-light wrk" \
        "curl util-linux procps" >&2
    exit 1
fi
if [ "$(nproc)" -lt 2 ]; then
    echo "needs two cores: one for the server, one for its client" >&2
    exit 1
fi
cargo build --quiet --release -p http_service

dir=$(mktemp -d)
ours= nginx=
stop() {
    for pid in $ours $nginx; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

chmod 755 "$dir"
mkdir "$dir/root" "$dir/turns"
head -c "$BYTES" /dev/zero | tr '\0' 'x' > "$dir/root/file.txt"

taskset -c 0 "$target/release/http_service" --addr 127.0.0.1:0 \
    --root "$dir/root" > "$dir/ours.txt" 2> "$dir/ours.log" &
ours=$!

# nginx cannot say which port it was given, so one is tried after the other.
for port in $(seq $((20000 + $$ % 10000)) $((20020 + $$ % 10000))); do
    cat > "$dir/nginx.conf" << END
worker_processes 1;
daemon off;
pid $dir/nginx.pid;
error_log $dir/nginx.log;
events { worker_connections 4096; }
http {
    types { text/plain txt; }
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path $dir/temp1;
    proxy_temp_path $dir/temp2;
    fastcgi_temp_path $dir/temp3;
    uwsgi_temp_path $dir/temp4;
    scgi_temp_path $dir/temp5;
    server {
        listen 127.0.0.1:$port;
        root $dir/root;
        location /copied/ { sendfile off; alias $dir/root/; }
    }
}
END
    taskset -c 0 nginx -p "$dir" -c "$dir/nginx.conf" -e "$dir/nginx.log" &
    nginx=$!
    for _ in $(seq 50); do
        kill -0 "$nginx" 2> /dev/null || break
        curl -fs "http://127.0.0.1:$port/file.txt" > /dev/null && break 2
        sleep 0.1
    done
    kill "$nginx" 2> /dev/null || true
    wait "$nginx" 2> /dev/null || true
    nginx=
done
if [ -z "$nginx" ]; then
    echo "nginx does not serve:" >&2
    cat "$dir/nginx.log" >&2
    exit 1
fi
addr=$(sed -n 's/^listening on //p' "$dir/ours.txt")
if [ -z "$addr" ]; then
    echo "http_service does not serve:" >&2
    cat "$dir/ours.log" >&2
    exit 1
fi
ours_url=http://$addr/file.txt
nginx_url=http://127.0.0.1:$port/file.txt
copied_url=http://127.0.0.1:$port/copied/file.txt
for url in "$ours_url" "$nginx_url" "$copied_url"; do
    if ! curl -fs "$url" | cmp -s - "$dir/root/file.txt"; then
        echo "$url is not the file" >&2
        exit 1
    fi
done

# Nanoseconds on a core, of a server's process and its children, each of which
# has one thread: proc(5).
on_core() {
    local sum=0 pid
    for pid in "$1" $(pgrep -P "$1"); do
        read -r time _ < "/proc/$pid/schedstat"
        sum=$((sum + time))
    done
    echo "$sum"
}

# turn NAME PID URL: adds `requests/s nanoseconds/request` to the turns.
turn() {
    local before after out requests rate
    before=$(on_core "$2")
    out=$(taskset -c 1 wrk -t 1 -c "$CONNECTIONS" -d "${SECONDS_EACH}s" \
        "$3")
    after=$(on_core "$2")
    if grep -E 'Socket errors|Non-2xx' <<< "$out" >&2; then
        echo "$1 did not answer well" >&2
        exit 1
    fi
    requests=$(awk '/requests in/ { print $1 }' <<< "$out")
    rate=$(awk '/^Requests\/sec/ { print $2 }' <<< "$out")
    echo "$rate $(((after - before) / requests))" >> "$dir/turns/$1"
}

echo "nginx: $(nginx -v 2>&1 | sed 's/.*: //'); $BYTES bytes," \
    "$CONNECTIONS connections, $ROUNDS rounds of $SECONDS_EACH s each"
for round in $(seq "$ROUNDS"); do
    # Who comes first changes: the machine may be getting busier.
    for place in 0 1 2; do
        case $(((round + place) % 3)) in
        0) turn http_service "$ours" "$ours_url" ;;
        1) turn nginx "$nginx" "$nginx_url" ;;
        2) turn nginx_copied "$nginx" "$copied_url" ;;
        esac
    done
done

# median FILE COLUMN: lowest, median, highest.
median() {
    sort -n -k "$2,$2" "$1" | awk -v column="$2" '
        { all[NR] = $column }
        END {
            middle = all[int((NR + 1) / 2)]
            if (NR % 2 == 0) middle = (middle + all[NR / 2 + 1]) / 2
            printf "%d %d %d\n", all[1], middle, all[NR]
        }'
}

printf '%-14s %28s %28s\n' '' 'requests/s (from..to)' 'CPU ns/request (from..to)'
for name in http_service nginx nginx_copied; do
    read -r low middle high < <(median "$dir/turns/$name" 1)
    rates="$middle ($low..$high)"
    read -r low middle high < <(median "$dir/turns/$name" 2)
    printf '%-14s %28s %28s\n' "$name" "$rates" "$middle ($low..$high)"
done
# The ratio of a round's two turns: what slows both down is in neither.
for name in nginx nginx_copied; do
    paste "$dir/turns/http_service" "$dir/turns/$name" |
        awk '{ print $1 / $3 * 1000, $2 / $4 * 1000 }' > "$dir/turns/ratios"
    read -r _ rate _ < <(median "$dir/turns/ratios" 1)
    read -r _ cost _ < <(median "$dir/turns/ratios" 2)
    awk -v name="to $name" -v rate="$rate" -v cost="$cost" 'BEGIN {
        printf "%-16s %26.3f %28.3f\n", name, rate / 1000, cost / 1000
    }'
done
