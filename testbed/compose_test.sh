#!/usr/bin/env bash
# docker-compose.yaml, tried for real: builds, starts, and does to the containers what happens to
# containers. Every message has to have its effect exactly once, whatever comes. Needs a Docker engine
# on Linux, and leaves nothing behind but build cache: containers, volumes and images have a name of their own.
#
# PG_MAJOR is the version of PostgreSQL (17 unless given); NEXT_PG_MAJOR is one to which the data moves at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=pg_mask_test_$$
export COMPOSE_PROFILES=localstack
# Any free ports; messages of a killed forwarder come again soon.
export POSTGRES_PORT=0 LOCALSTACK_PORT=0 METRICS_PORT=0 PROMETHEUS_PORT=0 GRAFANA_PORT=0 FORWARDER_VISIBILITY_TIMEOUT=5s
readonly POSTGRES_IMAGE=$COMPOSE_PROJECT_NAME-postgres:${PG_MAJOR:-17}
readonly FORWARDER_IMAGE=$COMPOSE_PROJECT_NAME-forwarder
readonly SAMPLES=300 BAD_SAMPLES=3
SENT=$((SAMPLES - BAD_SAMPLES)) # logins that have to be in the table
work=$(mktemp -d)
step=
replaced_image=

# --- small tools -----------------------------------------------------------------------------------
step() {
    step=$1
    printf '[%4d s] %s\n' "$SECONDS" "$step"
}

fail() {
    printf 'FAILED: %s: %s\n' "$step" "$1" >&2
    exit 1
}

# Says nothing unless it fails.
quietly() {
    if ! "$@" >"$work/output" 2>&1; then
        tail -n 40 "$work/output" >&2
        fail "$*"
    fi
}

compose() { docker compose "$@"; }

# wait_until WHAT COMMAND...: two minutes at most.
wait_until() {
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "waited in vain: $what"
        sleep 0.3
    done
}

equal() { [ "$2" = "$3" ] || fail "$1: expected $3, found $2"; }

sql() { compose exec -T postgres psql --no-psqlrc --tuples-only --no-align --quiet --username=postgres --command="$1"; }
rows() { sql "SELECT count(*) FROM user_logins"; }
rows_of() { sql "SELECT count(*) FROM user_logins WHERE user_id LIKE '$1-%'"; }
id() { compose ps --all --quiet "$1"; }
state() { docker inspect --format "{{.State.$2}}" "$(id "$1")"; }
is_healthy() { [ "$(state "$1" Health.Status)" = healthy ]; }

# Sends logins NAME-0 … NAME-(COUNT - 1).
send() {
    compose exec -T localstack python - "$1" "$2" <<'END'
import json, sys
import boto3

sqs = boto3.client("sqs", endpoint_url="http://localhost:4566", region_name="us-east-1",
                   aws_access_key_id="test", aws_secret_access_key="test")
url = sqs.get_queue_url(QueueName="login-queue")["QueueUrl"]
name, count = sys.argv[1], int(sys.argv[2])
for start in range(0, count, 10):
    logins = [{"user_id": f"{name}-{n}", "ip": "203.0.113.7"} for n in range(start, min(start + 10, count))]
    entries = [{"Id": str(n), "MessageBody": json.dumps(login)} for n, login in enumerate(logins)]
    assert not sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
END
}

# What is visible, in flight or delayed, in the queue or among the dead letters.
waiting() {
    local queue
    for queue in login-queue login-queue-dead-letters; do
        compose exec -T localstack curl -fsS \
            "http://localhost:4566/000000000000/$queue?Action=GetQueueAttributes&AttributeName.1=All" ||
            return
    done | sed 's/<Attribute>/\n/g' |
        awk -F'[<>]' '/ApproximateNumberOfMessages/ { sum += $7; seen = 1 } END { if (!seen) exit 1; print sum }'
}
queue_is_empty() { [ "$(waiting 2>/dev/null)" = 0 ]; }

# Every login that was sent is there once, and nothing is left in the queue.
all_is_there_once() {
    wait_until "the queue is empty" queue_is_empty
    equal "rows" "$(rows)" "$SENT"
    equal "different messages" "$(sql "SELECT count(*) FROM pgmask.ledger")" "$((SENT + BAD_SAMPLES))"
    equal "users of the load" "$(sql "SELECT count(DISTINCT user_id) FROM user_logins WHERE user_id LIKE 'load%'")" \
        "$((SENT - SAMPLES + BAD_SAMPLES))"
    equal "quarantined messages" "$(sql "SELECT sum(messages) FROM pgmask.quarantine_summary")" $BAD_SAMPLES
}

# under_load NAME COUNT: a load of its own, sent in the background; returns in the midst of it.
under_load() {
    send "$1" "$2" >"$work/send" 2>&1 &
    sender=$!
    wait_until "the first rows of $1 are there" some_rows_of "$1"
    [ "$(rows_of "$1")" -lt "$2" ] || fail "all of the load was through too soon to try anything"
}
some_rows_of() { [ "$(rows_of "$1")" -gt 0 ]; }

# What the forwarder answers over HTTP, asked from another container.
ask() {
    compose exec -T postgres bash -c \
        "exec 3<>/dev/tcp/forwarder/9464 && printf 'GET /$1 HTTP/1.0\r\n\r\n' >&3 && cat <&3"
}
metric() { awk -v name="pg_mask_forwarder_$1" '$1 == name { print $2 }' "$work/metrics"; }

# All that this forwarder ever received is stored, or was made visible again.
has_settled_all() {
    ask metrics >"$work/metrics" &&
        [ "$(metric received_total)" = $(($(metric inserted_total) + $(metric duplicate_total) + $(metric quarantined_total) + $(metric released_total))) ]
}

says() { compose logs "${@:3}" "$1" | grep -F "$2" >/dev/null; }

# The backup becomes the data volume, as PostgreSQL's own user.
restore() {
    # shellcheck disable=SC2016 # the container's variable
    compose run --rm --no-deps -T --entrypoint=bash postgres -c 'mkdir -m 700 "$PGDATA" && tar -x -C "$PGDATA"' <"$work/backup.tar"
}

keep_keyring() { (umask 077 && compose exec -T postgres cat /var/lib/pg_mask/pg_mask.keyring >"$work/keyring"); }
put_keyring_back() {
    compose exec -T postgres bash -c 'umask 077 && cat >/var/lib/pg_mask/pg_mask.keyring' <"$work/keyring"
}
is_unhealthy() { [ "$(state "$1" Health.Status)" = unhealthy ]; }

# The server makes its database; nobody can log in yet.
# shellcheck disable=SC2016 # the container's variable
makes_its_database() { compose exec -T postgres bash -c 'test -s "$PGDATA/PG_VERSION"'; }
first_start_is_done() {
    compose run --rm --no-deps -T --entrypoint=bash postgres -c 'test ! -e /var/lib/postgresql/data/first-start-not-done'
}

started_after() { [ "$(state "$1" StartedAt)" != "$2" ]; }

# A crash as containers have it, seen from the engine: the process is gone. Not docker kill, which
# tells the engine that nobody wants the container any more.
crash() {
    local pid
    pid=$(state "$1" Pid)
    quietly docker run --rm --pid=host --user=0 --entrypoint=kill "$POSTGRES_IMAGE" -KILL "$pid"
}

# ends_with CODE TEXT COMMAND...: ends with that code and one line, which holds the text.
ends_with() {
    local code=$1 text=$2 found=0
    shift 2
    "$@" >"$work/stdout" 2>"$work/stderr" || found=$?
    equal "exit code" "$found" "$code"
    grep -hE '"level":"(ERROR|WARN)"|error:' "$work/stdout" "$work/stderr" >"$work/said" || true
    equal "lines that say so" "$(wc -l <"$work/said")" 1
    grep -q -- "$text" "$work/said" || fail "expected '$text' in: $(cat "$work/said")"
    printf '         %s\n' "$(cut -c 1-220 "$work/said")"
}

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    if [ $code != 0 ]; then
        compose ps --all >&2 || true
        compose logs --tail=15 >&2 || true
    fi
    compose --profile '*' down --volumes --remove-orphans --timeout=5 >"$work/down" 2>&1 || cat "$work/down" >&2
    # shellcheck disable=SC2086
    docker image rm --force "$POSTGRES_IMAGE" "${POSTGRES_IMAGE%:*}:${NEXT_PG_MAJOR:-none}" "$FORWARDER_IMAGE" $replaced_image >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $code
}

docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || {
    echo "compose_test: no Docker engine answers; start one, or set DOCKER_HOST" >&2
    exit 1
}
docker compose version >/dev/null 2>&1 || {
    echo "compose_test: docker has no compose plugin; install it (Debian: docker-compose; elsewhere docker-compose-plugin)" >&2
    exit 1
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- it comes up -----------------------------------------------------------------------------------
step "docker compose config has nothing to warn of"
for profile in localstack original monitoring; do
    warnings=$(compose --profile "$profile" config --quiet 2>&1)
    equal "warnings with the profile $profile" "$warnings" ""
done

step "images are built, and no other is left behind"
nameless() { docker image ls --quiet --no-trunc --filter dangling=true | sort; }
before=$(nameless)
quietly compose build
equal "nameless images that are new" "$(comm -13 <(echo "$before") <(nameless))" ""

step "the first start is killed half way"
quietly compose up --detach postgres
wait_until "it makes its database" makes_its_database
quietly compose kill --signal=KILL postgres
! first_start_is_done || fail "the first start was done too soon to try anything"

step "everything comes up and is healthy"
quietly compose up --detach --wait
first_start_is_done || fail "the first start is not done"
says postgres "the first start was interrupted" || fail "nothing says that the database was made anew"
equal "what PostgreSQL loads at its start" "$(sql "SHOW shared_preload_libraries")" pg_mask
ask readyz | grep -q "200 OK" || fail "the forwarder is not ready: $(ask readyz)"

step "all sample logins arrive"
all_is_there_once
[ "$(sql "SELECT count(*) FROM logins.shared_ips")" -gt 0 ] || fail "no duplicates are found"

step "nobody but LocalStack is root, or may write where nothing has to be written"
for service in passwords postgres forwarder; do
    user=$(docker inspect --format '{{.Config.User}}' "$(id $service)")
    case $user in '' | 0* | root*) fail "$service runs as user '$user'" ;; esac
    equal "$service: read-only root file system, capabilities" \
        "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}' "$(id $service)")" "true [ALL]"
done
for service in postgres forwarder; do
    ! docker top "$(id $service)" -eo pid,uid | awk 'NR > 1 && $2 == 0 { root = 1 } END { exit !root }' || fail "a process of $service is root"
done

step "passwords and keys are where they belong"
for who in superuser forwarder; do
    password=$(compose exec -T postgres cat /run/passwords/$who/password)
    [ ${#password} -ge 32 ] || fail "the $who's password is short"
    # shellcheck disable=SC2046
    ! docker inspect $(compose ps --all --quiet) | grep -qF -- "$password" || fail "the $who's password can be inspected"
    ! compose logs | grep -qF -- "$password" || fail "the $who's password is in a log"
done
mounted=$(docker inspect --format '{{range .Mounts}}{{.Destination}} {{end}}' "$(id forwarder)")
equal "what the forwarder sees" "$mounted" "/run/passwords/forwarder "
equal "the keyring's mode and owner" \
    "$(compose exec -T postgres stat --format '%a %U' /var/lib/pg_mask/pg_mask.keyring)" "600 postgres"
equal "keyrings in the data directory" \
    "$(compose exec -T postgres find /var/lib/postgresql/data -name '*.keyring')" ""
! compose logs | grep -qF '203.0.113.7' || fail "an address is in a log"

# --- stopped and killed -----------------------------------------------------------------------------
step "stop and start in the midst of a load"
quietly compose pause forwarder
quietly send load-stop 4000
quietly compose unpause forwarder
wait_until "the first rows are there" some_rows_of load-stop
left=$(waiting)
[ "$left" -gt 0 ] || fail "all of the load was through too soon to try anything"
quietly compose stop
equal "the forwarder's exit code" "$(state forwarder ExitCode)" 0
quietly compose start
quietly compose up --detach --wait --no-recreate
SENT=$((SENT + 4000))
all_is_there_once
printf '         %s messages were waiting when it stopped\n' "$left"

# What the forwarder has stored by then it can't delete any more: it comes again, as a duplicate.
step "LocalStack alone is stopped in the midst of a load, and comes back with what it had"
quietly compose pause forwarder
quietly send load-stop-localstack 4000
quietly compose unpause forwarder
wait_until "the first rows are there" some_rows_of load-stop-localstack
quietly compose stop localstack
[ "$(rows_of load-stop-localstack)" -lt 4000 ] || fail "all of the load was through too soon to try anything"
quietly compose start localstack
wait_until "localstack is healthy" is_healthy localstack
SENT=$((SENT + 4000))
all_is_there_once

for victim in forwarder postgres; do
    step "kill -s KILL $victim in the midst of a load"
    under_load "load-kill-$victim" 4000
    quietly compose kill --signal=KILL "$victim"
    quietly compose start "$victim"
    wait $sender || fail "$(cat "$work/send")"
    wait_until "$victim is healthy" is_healthy "$victim"
    SENT=$((SENT + 4000))
    all_is_there_once
done

# LocalStack forgets what waits in it when it is killed. What the forwarder had received must be there
# once; the rest is sent again.
step "kill -s KILL localstack in the midst of a load"
under_load load-kill-localstack 4000
quietly compose kill --signal=KILL localstack
wait $sender || true
quietly compose start localstack
wait_until "localstack is healthy" is_healthy localstack
wait_until "the forwarder settled what it had received" has_settled_all
lost=$((4000 - $(rows_of load-kill-localstack)))
quietly send load-again "$lost"
SENT=$((SENT + 4000))
all_is_there_once
printf '         LocalStack forgot %s of 4000 messages\n' "$lost"

for victim in forwarder postgres localstack; do
    step "$victim crashes and comes back by itself"
    before=$(state $victim StartedAt)
    crash $victim
    wait_until "$victim was started again" started_after $victim "$before"
    wait_until "$victim is healthy" is_healthy $victim
    quietly send "load-crash-$victim" 100
    SENT=$((SENT + 100))
    all_is_there_once
done

step "the forwarder is started while PostgreSQL is down, and waits"
quietly compose stop postgres
quietly send load-waits 500
quietly compose restart forwarder
wait_until "it says what it waits for" says forwarder "the database" --since=30s
check=0
compose exec -T forwarder forwarder check >"$work/check" || check=$?
equal "what forwarder check says" "$check" 69
equal "the forwarder runs, restarts" "$(state forwarder Status) $(docker inspect --format '{{.RestartCount}}' "$(id forwarder)")" "running 0"
quietly compose start postgres
SENT=$((SENT + 500))
all_is_there_once

step "a rebuilt image: data and keys stay"
token=$(sql "SELECT mask_pii('203.0.113.7')")
replaced_image=$(docker inspect --format '{{.Image}}' "$(id postgres)")
quietly docker build --file deploy/docker/Dockerfile --target postgres --build-arg "PG_MAJOR=${PG_MAJOR:-17}" --label rebuilt=yes --tag "$POSTGRES_IMAGE" .
quietly compose up --detach --wait
[ "$(docker inspect --format '{{.Image}}' "$(id postgres)")" != "$replaced_image" ] || fail "the container still runs the old image"
equal "the token of an address" "$(sql "SELECT mask_pii('203.0.113.7')")" "$token"
quietly send load-rebuilt 100
SENT=$((SENT + 100))
all_is_there_once

step "a new data volume from a backup: the keys are still there"
compose exec -T postgres pg_basebackup --username=postgres --pgdata=- --format=tar --wal-method=fetch >"$work/backup.tar"
quietly compose stop forwarder
quietly compose rm --stop --force postgres
quietly docker volume rm "${COMPOSE_PROJECT_NAME}_data"
quietly restore
quietly compose up --detach --wait
equal "the token of an address" "$(sql "SELECT mask_pii('203.0.113.7')")" "$token"
equal "keys that fit" "$(sql "SELECT bool_and(state = 'ok') FROM pgmask.key_status()")" t
quietly send load-restored 100
SENT=$((SENT + 100))
all_is_there_once

step "the keyring is lost: the server says so, takes nothing in, and goes on when it is back"
keep_keyring
quietly compose exec -T postgres rm /var/lib/pg_mask/pg_mask.keyring
quietly send load-keyring 100
wait_until "postgres is unhealthy" is_unhealthy postgres
quietly compose restart postgres
wait_until "it says what is missing" says postgres "error: /var/lib/pg_mask/pg_mask.keyring is missing"
equal "rows without a key" "$(rows_of load-keyring)" 0
put_keyring_back
wait_until "postgres is healthy" is_healthy postgres
SENT=$((SENT + 100))
all_is_there_once

step "the forwarder gets another password"
quietly compose run --rm --no-deps -T --entrypoint=bash passwords -c 'rm /run/passwords/forwarder/password && make_passwords.sh'
ends_with 78 "Check the password (from /run/passwords/forwarder/password)" docker compose run --rm --no-deps -T forwarder
quietly compose exec -T postgres /docker-entrypoint-initdb.d/04_forwarder_password.sh
quietly compose restart forwarder
quietly send load-password 100
SENT=$((SENT + 100))
all_is_there_once

# --- monitoring ---------------------------------------------------------------------------------------
# page HOST PORT PATH: what a page of a container says, asked from another.
page() {
    compose exec -T postgres bash -c "exec 3<>/dev/tcp/$1/$2 && printf 'GET $3 HTTP/1.0\r\n\r\n' >&3 && cat <&3"
}
forwarder_is_scraped() { page prometheus 9090 '/api/v1/query?query=pg_mask_forwarder_queue_up' 2>/dev/null | grep -q '"1"\]'; }
dashboard_is_there() { page grafana 3000 /api/dashboards/uid/pg-mask-forwarder 2>/dev/null | grep -q '"title":"pg_mask forwarder"'; }
if compose --profile monitoring pull --quiet prometheus grafana >"$work/output" 2>&1; then
    step "Prometheus scrapes the forwarder, and Grafana has the dashboard"
    quietly compose --profile monitoring up --detach --no-recreate prometheus grafana
    wait_until "the forwarder is scraped" forwarder_is_scraped
    page prometheus 9090 /api/v1/rules | grep -q PgMaskForwarderStalled || fail "Prometheus has no alerts"
    wait_until "the dashboard is there" dashboard_is_there
    quietly compose --profile monitoring rm --stop --force prometheus grafana
else
    step "the images of Prometheus and Grafana can't be had: the profile monitoring is not tried"
fi

# --- set up wrong ------------------------------------------------------------------------------------
step "a wrong password, a missing secret: one line, and it says what to do"
run_forwarder=(docker compose run --rm --no-deps -T)
ends_with 78 "Check the password" "${run_forwarder[@]}" --env PGPASSWORD=not-it forwarder
ends_with 78 "/no/such/secret" "${run_forwarder[@]}" --env PGPASSWORD_FILE=/no/such/secret forwarder
ends_with 78 "QueueDoesNotExist\|NonExistentQueue" "${run_forwarder[@]}" --env QUEUE_NAME=no-such-queue forwarder
ends_with 1 "/no/such/secret" docker run --rm --env POSTGRES_PASSWORD=x \
    --env FORWARDER_PASSWORD_FILE=/no/such/secret "$POSTGRES_IMAGE"

# --- another major version ------------------------------------------------------------------------------
# What has to be the same afterwards; docs/docker.md has the commands of the move.
all_that_moves() {
    sql "SELECT count(*), md5(string_agg(l::text, ',' ORDER BY l::text)) FROM user_logins l"
    sql "SELECT count(*), md5(string_agg(message_id::text, ',' ORDER BY message_id)) FROM pgmask.ledger"
    sql "SELECT count(*), sum(messages) FROM pgmask.quarantine_summary"
    sql "SELECT kind, number, current, state FROM pgmask.key_status() ORDER BY kind, number"
    sql "SELECT mask_pii('203.0.113.7'), has_table_privilege('an_analyst', 'user_logins', 'SELECT'), pg_has_role('an_analyst', 'pgmask_analyst', 'USAGE')"
    sql "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'pgmask_forwarder'::regrole"
}
move() {
    compose exec -T postgres pg_dumpall -U postgres --roles-only >"$work/roles.sql"
    compose exec -T postgres pg_dump -U postgres --format=custom postgres >"$work/logins.dump"
    quietly compose rm --stop --force postgres
    quietly docker volume rm "${COMPOSE_PROJECT_NAME}_data"
    export PG_MAJOR=$NEXT_PG_MAJOR
    quietly compose up --build --detach --wait postgres
    # Most of the roles are there already.
    compose exec -T postgres psql -U postgres <"$work/roles.sql" >"$work/output" 2>&1
    compose exec -T postgres pg_restore -U postgres --dbname=postgres --clean --if-exists --single-transaction <"$work/logins.dump"
}
if [ -n "${NEXT_PG_MAJOR:-}" ]; then
    step "the data moves to PostgreSQL $NEXT_PG_MAJOR, and the keyring stays"
    quietly sql "CREATE ROLE an_analyst IN ROLE pgmask_analyst"
    quietly sql "GRANT SELECT ON user_logins TO an_analyst"
    quietly compose stop forwarder
    quietly send load-moved 100
    all_that_moves >"$work/before"
    move
    [ "$(sql "SHOW server_version_num")" -ge "${NEXT_PG_MAJOR}0000" ] || fail "it is the old server"
    all_that_moves >"$work/after"
    diff "$work/before" "$work/after" >&2 || fail "it is not the same afterwards"
    quietly compose up --detach --wait
    SENT=$((SENT + 100))
    all_is_there_once
fi

step "images"
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' |
    awk -v project="$COMPOSE_PROJECT_NAME" 'index($1, project) == 1 { sub(project "-", ""); printf "         %s\n", $0 }'

step "done: $SENT logins sent, each there once"
