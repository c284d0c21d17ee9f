#!/bin/bash
# Reads mongod's arguments and the public image's environment, and starts FerretDB with the corresponding address, data folder, TLS files
# and user. It accepts mongod's other options and ignores them.
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

# As the public image, listen on every address by default.
address=0.0.0.0 port=27017 data=/data/db tls=disabled pair='' authority='' without_certificate=no
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
    --tlsAllowConnectionsWithoutCertificates) without_certificate=yes ;;
    -*) echo "FerretDB does not support $option" ;;
    *) fail "mongod has no argument $option" ;;
    esac
done

arguments=(-data "$data")
case $tls in
disabled) arguments+=(-listen "$address:$port") ;;
requireTLS)
    arguments+=(-listen '' -tls "$address:$port" -tls-cert "$pair" -tls-key "$pair")
    [[ -z $authority || $without_certificate = yes ]] || arguments+=(-tls-ca "$authority")
    ;;
*) fail "--tlsMode $tls is not supported; the supported modes are disabled and requireTLS" ;;
esac

# The value is in NAME, or in the file that NAME_FILE names.
for name in MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD; do
    file=${name}_FILE
    [ -z "${!file:-}" ] || export "$name=$(<"${!file}")"
done
if [ -n "${MONGO_INITDB_ROOT_USERNAME:-}" ]; then
    [ -n "${MONGO_INITDB_ROOT_PASSWORD:-}" ] || fail "MONGO_INITDB_ROOT_USERNAME is set, and MONGO_INITDB_ROOT_PASSWORD is not"
    arguments+=(-user "$MONGO_INITDB_ROOT_USERNAME" -password-env MONGO_INITDB_ROOT_PASSWORD)
fi
exec /usr/local/lib/mongo "${arguments[@]}"
