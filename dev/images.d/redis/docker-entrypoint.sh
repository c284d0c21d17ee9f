#!/bin/bash
# As the public image's: options and files alone are redis-server's, root becomes redis, and other machines may connect without a
# password unless an option says otherwise.
set -euo pipefail
[[ ${1:-} != -* && ${1:-} != *.conf ]] || set -- redis-server "$@"
if [[ $1 = redis-server ]]; then
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis '{}' +
        exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
    fi
    [[ " $* " = *" --protected-mode "* ]] || set -- "$@" --protected-mode no
fi
exec "$@"
