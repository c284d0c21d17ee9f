#!/bin/bash
# Reads mongod's arguments and the public image's environment, and starts FerretDB by them: where it listens, where its data are, TLS, and
# who logs in. What else mongod knows is taken and has no effect.
set -euo pipefail

fail() {
    echo "$1" >&2
    exit 1
}

[[ ${1:-} != -* ]] || set -- mongod "$@"
[[ $1 = mongod ]] || exec "$@"
if [ "$(id -u)" = 0 ]; then
    chown -R mongodb /data/db
    exec setpriv --reuid=mongodb --regid=mongodb --clear-groups -- "$0" "$@"
fi
shift

# The public image listens on every address unless it is told one.
address=0.0.0.0 port=27017 data=/data/db tls=disabled pair='' authority='' anyone=no
while (($#)); do
    option=$1 value=''
    shift
    if [[ $option = --*=* ]]; then
        value=${option#*=} option=${option%%=*}
    elif (($#)) && [[ $1 != -* ]]; then
        value=$1
        shift
    fi
    case $option in
    --bind_ip_all) address=0.0.0.0 ;;
    --bind_ip) address=${value%%,*} ;;
    --port) port=$value ;;
    --dbpath) data=$value ;;
    --tlsMode) tls=$value ;;
    --tlsCertificateKeyFile) pair=$value ;;
    --tlsCAFile) authority=$value ;;
    --tlsAllowConnectionsWithoutCertificates) anyone=yes ;;
    -*) echo "FerretDB has no $option" ;;
    *) fail "mongod has no argument $option" ;;
    esac
done

arguments=(-data "$data")
case $tls in
disabled) arguments+=(-listen "$address:$port") ;;
requireTLS)
    arguments+=(-listen '' -tls "$address:$port" -tls-cert "$pair" -tls-key "$pair")
    [[ -z $authority || $anyone = yes ]] || arguments+=(-tls-ca "$authority")
    ;;
*) fail "of --tlsMode only disabled and requireTLS are known here, not $tls" ;;
esac

# NAME, or the file that NAME_FILE names.
for name in MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD; do
    file=${name}_FILE
    [ -z "${!file:-}" ] || export "$name=$(<"${!file}")"
done
if [ -n "${MONGO_INITDB_ROOT_USERNAME:-}" ]; then
    [ -n "${MONGO_INITDB_ROOT_PASSWORD:-}" ] || fail "MONGO_INITDB_ROOT_USERNAME is set, and MONGO_INITDB_ROOT_PASSWORD is not"
    arguments+=(-user "$MONGO_INITDB_ROOT_USERNAME" -password-env MONGO_INITDB_ROOT_PASSWORD)
fi
exec /usr/local/lib/mongo "${arguments[@]}"
